"""How the signals of a dataset usually behave: what every episode is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from lerobot_topreward.records import EpisodeRecording, Signals

_STILL_SHARE = 0.005  # of a signal's range that counts as still, unless its noise is larger
STILL_NOISE = 8.0  # standard deviations of the noise, peak to peak, that a still signal covers
LEAST_EPISODES = 8  # fewer do not say what is usual
_QUIET_S = 0.5  # s over which the power of the noise is averaged


@dataclass(frozen=True, slots=True)
class Profile:
    """How the signals of a dataset usually behave."""

    fps: float  # Hz
    signals: Signals
    low: Float64[np.ndarray, " signals"]  # 5th percentile of the episodes' least values
    high: Float64[np.ndarray, " signals"]  # 95th percentile of their greatest ones
    noise: Float64[np.ndarray, " signals"]  # standard deviation from frame to frame while still
    step: Float64[np.ndarray, " signals"]  # 95th percentile of an episode's steps, their median
    leap: Float64[np.ndarray, " signals"]  # an episode's largest step between frames, their median
    moves: Bool[np.ndarray, " signals"]  # in some episode
    two_valued: Bool[np.ndarray, " signals"]  # as a gripper that is open or closed
    episodes: int

    @property
    def range(self) -> Float64[np.ndarray, " signals"]:
        """From `low` to `high`."""
        return self.high - self.low

    @property
    def tolerance(self) -> Float64[np.ndarray, " signals"]:
        """What a signal may cover, peak to peak, and be still."""
        return np.maximum(STILL_NOISE * self.noise, _STILL_SHARE * self.range)

    @property
    def usual_step(self) -> Float64[np.ndarray, " signals"]:
        """How far a signal goes between two frames at most; speeds, and differences, go far.

        Of a few episodes the largest step may be a defect itself, so fast steps stand for it.
        """
        return self.leap if self.episodes >= LEAST_EPISODES else self.step

    def frames(self, seconds: float) -> int:
        """So many seconds in frames, at least one."""
        return max(1, round(seconds * self.fps))


def measure_profile(
    recordings: Iterable[EpisodeRecording], signals: Signals, *, fps: float
) -> Profile:
    """Measure the signals of a dataset; what is not finite is left out."""
    width = len(signals.names)
    lows, highs, noises, fast, largest = [], [], [], [], []
    moves, two_valued = np.zeros(width, dtype=bool), np.ones(width, dtype=bool)
    for recording in recordings:
        values = recording.values[np.isfinite(recording.values).all(axis=1)]
        if len(values) == 0:
            continue
        low, high = values.min(axis=0), values.max(axis=0)
        moves |= high > low
        two_valued &= ((values == low) | (values == high)).all(axis=0)
        lows.append(low)
        highs.append(high)
        # Steps of a movement are larger than those of noise, so the quietest tenth of an episode
        # shows the noise of a signal, unless it never stands still.
        span = max(2, round(_QUIET_S * fps))
        if len(values) < 2:
            continue
        steps = np.abs(np.diff(values, axis=0))
        fast.append(np.quantile(steps, 0.95, axis=0))
        largest.append(steps.max(axis=0))
        if len(values) > span:
            power = np.lib.stride_tricks.sliding_window_view(steps**2, span, axis=0).mean(axis=-1)
            noises.append(np.sqrt(np.quantile(power, 0.1, axis=0) / 2))
    if not lows:
        zeros = np.zeros(width)
        return Profile(fps, signals, zeros, zeros, zeros, zeros, zeros, moves, two_valued, 0)
    least, greatest = np.array(lows), np.array(highs)
    return Profile(
        fps=fps,
        signals=signals,
        low=np.quantile(least, 0.05, axis=0),
        high=np.quantile(greatest, 0.95, axis=0),
        noise=np.quantile(noises, 0.25, axis=0) if noises else np.zeros(width),
        step=np.median(fast, axis=0) if fast else np.zeros(width),
        leap=np.median(largest, axis=0) if largest else np.zeros(width),
        moves=moves,
        # In every episode the same two values, or one of them.
        two_valued=two_valued
        & np.array([len({*ends}) == 2 for ends in np.vstack([least, greatest]).T], dtype=bool),
        episodes=len(lows),
    )

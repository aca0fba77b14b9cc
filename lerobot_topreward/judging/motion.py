"""How an episode moves: pure arithmetic on its commands and readings, no VLM, no pictures.

`judging.inspection` says which of these numbers are wrong, or far from those of the same task.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lerobot_topreward.judging.profile import STILL_NOISE, Profile
from lerobot_topreward.records import EpisodeRecording

_SPEED = re.compile(r"(^|[._ ])vel(ocity)?($|[._ ])", re.IGNORECASE)
STILL_S = 0.3  # s: what stays within the tolerance for so long is still
_STOPPED = 0.02  # of the range of a speed: what is less is no movement
_SMOOTH_S = 0.2  # s over which a signal is averaged before it is differentiated
_REVERSAL_SHARE = 0.03  # of a signal's range that a movement back has to cover to count
LONGEST_LAG_S = 1.0  # s by which a reading may follow its command, or come before it
_POSITION = 0.25  # of a signal's range: what moves less between two frames is a position
_CUT_SPEED = 0.2  # of a joint's usual speed: what reaches a limit faster is cut off there
_NEAR_S = 0.1  # s over which that speed is measured
_MEASURABLE = 0.02  # of a range: what moves less says nothing of lag
_ROUNDING = 1e-20  # of squares of sums: what varies less is constant
_Z_SCALE = 1.4826  # of the MAD: the standard deviation, for normal values
_LEAST_SCALE = 0.1  # of the median: what differs less is never far


@dataclass(frozen=True, slots=True)
class Motion:
    """How an episode moves; nan where it cannot be said."""

    episode_index: int
    task: str
    seconds: float
    idle: Bool[np.ndarray, " frames"]  # neither commands nor readings change
    idle_share: float  # 0..1, of the frames
    longest_idle: float  # 0..1, the longest idle run, as a share of the episode
    jerk: float  # log dimensionless jerk: less is smoother
    path: float  # length of the way, as a multiple of the diagonal of the box that it fills
    reversals: float  # turns of all joints per second
    agreement: Float64[np.ndarray, " lags"]  # of commands and readings, see `measure_agreement`
    repeats: tuple[int, int] | None  # longest run of frames that are equal bit for bit
    resumes: float  # the step after that run, as a multiple of the 95th percentile of steps
    saturated: float  # 0..1, of the frames that are not idle: a command is cut off at a limit


@dataclass(frozen=True, slots=True)
class MotionMetric:
    """A field of `Motion` that is compared among the episodes of a task."""

    key: str
    defect: str  # what an episode that is far from the others has
    label: str
    worst: Literal["high", "both"]
    unit: str = ""
    digits: int = 2
    least: float = -np.inf  # what is less is never far, however alike the others are


MOTION_METRICS = (
    MotionMetric("seconds", "odd length", "length", "both", " s", 1),
    MotionMetric("longest_idle", "idle", "longest idle run", "high", " of the episode", least=0.15),
    MotionMetric("idle_share", "idle", "idle share", "high", " of the frames", least=0.15),
    MotionMetric("jerk", "jerky", "log dimensionless jerk", "high"),
    MotionMetric("path", "long way", "path length", "high", " times the box that it fills"),
    MotionMetric("reversals", "restless", "reversals", "high", " per second"),
)


def measure_motion(recording: EpisodeRecording, profile: Profile) -> Motion:
    """Measure how an episode moves."""
    signals, fps = profile.signals, profile.fps
    values = fill_gaps(recording.values)
    frames = len(values)
    idle = find_still(values, profile)
    run = longest_run(idle)
    moving = [i for i in signals.readings or signals.commands if profile.range[i] > 0]
    joints = [i for i in moving if not profile.two_valued[i]]
    positions = (values[:, joints] - profile.low[joints]) / profile.range[joints]
    smooth = _smooth(positions, profile.frames(_SMOOTH_S))
    repeats, resumes = find_repeats(values, profile)
    return Motion(
        episode_index=recording.episode_index,
        task=recording.task,
        seconds=len(recording.values) / fps,
        idle=idle,
        idle_share=float(idle.mean()) if frames else np.nan,
        longest_idle=(run[1] - run[0] + 1) / frames if run else (0.0 if frames else np.nan),
        jerk=measure_jerk(smooth, fps=fps),
        path=measure_path(smooth),
        reversals=count_reversals(smooth) / max(frames / fps, 1 / fps) if joints else np.nan,
        agreement=measure_agreement(values, profile),
        repeats=repeats,
        resumes=resumes,
        saturated=measure_saturation(values, idle, profile),
    )


def fill_gaps(
    values: Float64[np.ndarray, "frames signals"],
) -> Float64[np.ndarray, "frames signals"]:
    """Replace what is not finite by the last value that is; by 0 where there was none."""
    finite = np.isfinite(values)
    if finite.all():
        return values
    last = np.maximum.accumulate(np.where(finite, np.arange(len(values))[:, None], -1), axis=0)
    return np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), 0.0)


def find_still(
    values: Float64[np.ndarray, "frames signals"], profile: Profile
) -> Bool[np.ndarray, " frames"]:
    """Mark the frames at which neither a command nor a reading changes for `STILL_S`.

    A window is still when every signal stays within its tolerance, peak to peak; a frame is still
    when a still window holds it. Noise does not end a still run, and a slow movement leaves the
    window: a joint of 100 degrees that needs a minute for them is seen to move. What is named a
    speed, as ``x.vel`` of LeRobot's mobile bases, is still near zero alone: driving on at one speed
    changes nothing in it.
    """
    frames = len(values)
    chosen = [i for i in profile.signals.commands + profile.signals.readings if profile.moves[i]]
    span = profile.frames(STILL_S) + 1
    if frames < span or not chosen:
        return np.zeros(frames, dtype=bool)
    windows = np.lib.stride_tricks.sliding_window_view(values[:, chosen], span, axis=0)
    still = (np.ptp(windows, axis=-1) <= profile.tolerance[chosen]).all(axis=1)
    speeds = [n for n, i in enumerate(chosen) if _SPEED.search(profile.signals.names[i])]
    if speeds:
        stopped = np.maximum(profile.tolerance, _STOPPED * profile.range)[chosen][speeds]
        still &= (np.abs(windows[:, speeds]) <= stopped[:, None]).all(axis=(1, 2))
    return np.convolve(still, np.ones(span)) > 0.5


def find_runs_of(mask: Bool[np.ndarray, " frames"]) -> list[tuple[int, int]]:
    """List the runs of true frames: first and last frame of each."""
    edges = np.diff(np.concatenate([[0], mask.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(start), int(stop) - 1) for start, stop in zip(starts, stops, strict=True)]


def longest_run(mask: Bool[np.ndarray, " frames"]) -> tuple[int, int] | None:
    """Find the longest run of true frames: its first and last frame; the first of several."""
    return max(find_runs_of(mask), key=lambda run: run[1] - run[0], default=None)


def measure_jerk(positions: Float64[np.ndarray, "frames joints"], *, fps: float) -> float:
    """Log dimensionless jerk of a movement; nan where nothing moves or under four frames.

    ln(T^3 / v^2 * integral of |jerk|^2 dt) with the duration T and the greatest speed v, here of
    joints scaled by their range: the negative of LDLJ in Balasubramanian et al. (2015), On the
    analysis of movement smoothness, https://doi.org/10.1186/s12984-015-0090-9.
    """
    if len(positions) < 4 or positions.shape[1] == 0:
        return np.nan
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=1).max() * fps
    jerk = np.diff(positions, n=3, axis=0) * fps**3
    integral = float((jerk**2).sum()) / fps
    duration = len(positions) / fps
    return (
        float(np.log(duration**3 / speed**2 * integral)) if speed > 0 and integral > 0 else np.nan
    )


def measure_path(positions: Float64[np.ndarray, "frames joints"]) -> float:
    """Length of the way as a multiple of the diagonal of the box that it fills; nan if none.

    1 along a straight line. The box, not the distance from start to end, because most episodes end
    where they began.
    """
    if len(positions) < 2 or positions.shape[1] == 0:
        return np.nan
    diagonal = float(np.linalg.norm(np.ptp(positions, axis=0)))
    length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    return length / diagonal if diagonal > 0 else np.nan


def count_reversals(positions: Float64[np.ndarray, "frames joints"]) -> int:
    """Count how often joints turn back by at least 3 % of their range."""
    turns = 0
    for joint in positions.T:
        direction, extreme = 0, float(joint[0]) if len(joint) else 0.0
        for value in joint.tolist():
            if direction * (value - extreme) > 0:
                extreme = value
            elif abs(value - extreme) >= _REVERSAL_SHARE:
                turns += direction != 0
                direction, extreme = (1 if value > extreme else -1), value
    return turns


def find_repeats(
    values: Float64[np.ndarray, "frames signals"], profile: Profile
) -> tuple[tuple[int, int] | None, float]:
    """Find the longest run of frames at which all commands and readings are equal, bit for bit.

    Returns:
        Its first and last frame, None without any; and the step that follows it, as a multiple of
        the 95th percentile of the episode's steps: a recording that froze resumes with a jump.
    """
    moving = [i for i in profile.signals.commands + profile.signals.readings if profile.moves[i]]
    if len(values) < 3 or not moving:
        return None, 0.0
    steps = np.abs(np.diff(values, axis=0))
    run = longest_run((steps[:, moving] == 0).all(axis=1))
    # Speeds, and commands that are differences, jump at any time.
    positions = [i for i in moving if profile.usual_step[i] < _POSITION * profile.range[i]]
    if run is None or not positions:
        return run and (run[0], run[1] + 1), 0.0
    lengths = (steps[:, positions] / profile.range[positions]).max(axis=1)
    usual = float(np.quantile(lengths, 0.95))
    after = lengths[run[1] + 1] if run[1] + 1 < len(lengths) else 0.0
    return (run[0], run[1] + 1), float(after / usual) if usual > 0 else 0.0


def measure_agreement(
    values: Float64[np.ndarray, "frames signals"], profile: Profile
) -> Float64[np.ndarray, " lags"]:
    """Correlate readings with their commands at every lag of -1..1 s, frame by frame.

    Entry ``i`` is for readings that follow by ``i - reach`` frames, where ``reach`` is a second. It
    is the mean over the joints that move. nan where no command has a reading, nothing moves, or the
    episode is too short for the lag: at least two thirds of it must overlap.
    """
    reach = profile.frames(LONGEST_LAG_S)
    agreement = np.full(2 * reach + 1, np.nan)
    span = np.ptp(values, axis=0) if len(values) else np.zeros(len(profile.signals.names))
    pairs = [
        (command, reading)
        for command, reading in profile.signals.pairs
        if not profile.two_valued[command]
        and all(span[i] > _MEASURABLE * profile.range[i] for i in (command, reading))
        and all(span[i] > STILL_NOISE * profile.noise[i] for i in (command, reading))
    ]
    if not pairs:
        return agreement
    commands, readings = (values[:, list(side)] for side in zip(*pairs, strict=True))
    # All lags at once: sums of products come from sliding one side along the other, with zeros
    # around it, and the sums over what overlaps from running sums. Centered first, so that the
    # differences of these sums keep their digits.
    commands, readings = commands - commands.mean(axis=0), readings - readings.mean(axis=0)
    frames, most = len(values), min(reach, len(values) // 3)
    lags = np.arange(-most, most + 1)
    padded = np.pad(readings, ((most, most), (0, 0)))
    slid = np.lib.stride_tricks.sliding_window_view(padded, frames, axis=0)
    products = np.einsum("ljn,nj->lj", slid, commands)
    overlap = frames - np.abs(lags)[:, None]
    early, late = np.maximum(0, -lags), np.maximum(0, lags)
    sum_c, squares_c = _sum_between(commands, early, frames - late)
    sum_r, squares_r = _sum_between(readings, late, frames - early)
    spread = (squares_c - sum_c**2 / overlap) * (squares_r - sum_r**2 / overlap)
    moves = spread > _ROUNDING * squares_c * squares_r
    joint = (products - sum_c * sum_r / overlap) / np.sqrt(np.where(moves, spread, np.inf))
    agreement[lags + reach] = joint.mean(axis=1)
    return agreement


def _sum_between(
    values: Float64[np.ndarray, "frames joints"],
    first: Int64[np.ndarray, " lags"],
    stop: Int64[np.ndarray, " lags"],
) -> tuple[Float64[np.ndarray, "lags joints"], Float64[np.ndarray, "lags joints"]]:
    """Sum values, and their squares, over several spans of frames."""
    sums = [np.pad(v, ((1, 0), (0, 0))).cumsum(axis=0) for v in (values, values**2)]
    return sums[0][stop] - sums[0][first], sums[1][stop] - sums[1][first]


def measure_saturation(
    values: Float64[np.ndarray, "frames signals"],
    idle: Bool[np.ndarray, " frames"],
    profile: Profile,
) -> float:
    """Share of the frames at which the arm moves in which a command is cut off at a limit, 0..1.

    A command that is cut off stands still, bit for bit, at its greatest or least value in the
    episode, without having slowed down before, while another command moves on. Grippers and signals
    of two values, which stand at their limits by nature, are left out.
    """
    frames, least = len(values), profile.frames(STILL_S) + 1
    cut = np.zeros(frames, dtype=bool)
    near = profile.frames(_NEAR_S)
    others, noise = list(profile.signals.commands), profile.noise
    moved = np.maximum(profile.tolerance, _MEASURABLE * profile.range)[others]
    for command in profile.signals.commands:
        joint = values[:, command]
        if (
            profile.two_valued[command]
            or command in profile.signals.grippers
            or frames < least
            or np.ptp(joint) <= _MEASURABLE * profile.range[command]
        ):
            continue
        # How fast it usually moves, and how fast it reaches and leaves its limit, over a tenth of a
        # second: a joint that comes to rest slows down first.
        steps = np.abs(joint[near:] - joint[:-near])
        usual = _CUT_SPEED * float(np.median(steps[steps > 0])) if (steps > 0).any() else np.inf
        for extreme in (joint.min(), joint.max()):
            at_limit = joint == extreme
            if np.count_nonzero(at_limit) < least:
                continue
            for first, last in find_runs_of(at_limit):
                entered = abs(joint[first] - joint[max(0, first - near)])
                left = abs(joint[last] - joint[min(frames - 1, last + near)])
                if last - first + 1 < least or max(entered, left) < max(usual, noise[command]):
                    continue
                if (np.ptp(values[first : last + 1, others], axis=0) > moved).any():
                    cut[first : last + 1] = True
    active = int((~idle).sum())
    return float((cut & ~idle).sum() / active) if active else np.nan


def task_z(values: Sequence[float]) -> Float64[np.ndarray, " episodes"]:
    """Distance from the median, (x - median) / max(1.4826 MAD, 10 % of |median|); nan stays nan.

    The floor keeps a task whose episodes are nearly alike from calling every difference large.
    """
    given = np.array(values, dtype=np.float64)
    if not np.isfinite(given).any():
        return np.full(len(given), np.nan)
    median = np.nanmedian(given)
    spread = _Z_SCALE * np.nanmedian(np.abs(given - median))
    scale = max(float(spread), _LEAST_SCALE * abs(float(median)))
    away = given - median
    return away / scale if scale > 0 else np.where(away == 0, 0.0, np.copysign(np.inf, away))


def _smooth(
    positions: Float64[np.ndarray, "frames joints"], width: int
) -> Float64[np.ndarray, "averaged joints"]:
    """Average over `width` frames, without the ends where there are fewer."""
    if width < 2 or len(positions) < width:
        return positions
    return np.lib.stride_tricks.sliding_window_view(positions, width, axis=0).mean(axis=-1)

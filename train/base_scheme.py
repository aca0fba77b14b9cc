"""What all weighting schemes have: options, a formula, and texts that say what helps."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float32

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.records import FrameLabels, progress_gain, span_frames

# Of an option without a limit of its own: the product of two such still fits into the float32 of a
# weight.
_LARGEST = 1e15


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What all schemes have. The texts say which options help when weights will not train well."""

    name: ClassVar[str]
    normalize: ClassVar[Literal["dataset", "batch"]] = "dataset"  # unless the user says otherwise
    keeps_episodes: ClassVar[bool] = True  # an episode without any weight deserves a warning
    if_all_zero: ClassVar[str] = "choose options that keep more frames"
    if_nearly_equal: ClassVar[str | None] = None  # None: no warning
    if_almost_nothing: ClassVar[str] = "choose options that keep more frames"
    if_capped: ClassVar[str | None] = None  # None: no warning
    if_task_is_lost: ClassVar[str | None] = None  # None: a warning without advice
    cap: ClassVar[float | str] = np.inf  # the largest weight of the formula, or its option's name

    def weights(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """Weigh frames.

        Args:
            labels: of at least one frame, all of them labeled.
            chunk: the policy's action chunk, frames, >= 1; the default span of the advantage.

        Returns:
            Raw weights, 0..`cap` for each frame.

        Raises:
            UserError: a span is below one frame, or the labels lack what the formula needs.
        """
        raise NotImplementedError

    def settle(self, labels: FrameLabels) -> "Scheme":
        """Decide by the labels what nobody has decided."""
        return self

    def explain(self, labels: FrameLabels) -> str | None:
        """Say what `settle` decides, why, and which labels would allow better; None: nothing."""
        return None

    @property
    def stationary(self) -> Literal["keep", "drop"]:
        """What becomes of frames that stand still, unless the user says otherwise."""
        return "keep"

    def gain_frames(self, *, chunk: int, fps: float) -> int | None:
        """The frames over which progress gained is compared; None where none is."""
        return None

    def describe(self, *, chunk: int, fps: float) -> str:
        """Say in a few words what is weighed."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ProgressScheme(Scheme):
    """A scheme that judges a frame by the progress that is gained after it."""

    # Span of the advantage, seconds; by default the action chunk. episode: to the episode's end, for
    # awr with baseline=stage, which is its default where labels are normalized per task.
    horizon: Literal["episode"] | float | None = None

    def __post_init__(self) -> None:
        """Refuse a horizon that is not positive."""
        if self.horizon == "episode":
            raise UserError(
                "`weighting.horizon=episode` compares frames of the same progress, so it needs "
                "`weighting.scheme=awr` and `weighting.baseline=stage`; give both, or seconds"
            )
        require_positive(horizon=self.horizon)

    def horizon_frames(self, *, chunk: int, fps: float) -> int:
        """The span of the advantage, frames, >= 1."""
        if self.horizon is None or self.horizon == "episode":
            return chunk
        return span_frames("horizon", self.horizon, fps=fps)

    def gain_frames(self, *, chunk: int, fps: float) -> int | None:
        """See `Scheme.gain_frames`."""
        return None if self.horizon == "episode" else self.horizon_frames(chunk=chunk, fps=fps)

    def gain(self, labels: FrameLabels, *, chunk: int) -> Float32[np.ndarray, " frames"]:
        """Progress gained over the horizon, -1..1 for each frame."""
        horizon = self.horizon_frames(chunk=chunk, fps=labels.fps)
        return progress_gain(labels, horizon=horizon)

    def describe(self, *, chunk: int, fps: float) -> str:
        """See `Scheme.describe`."""
        frames = self.horizon_frames(chunk=chunk, fps=fps)
        return f"progress over {frames} frames ({frames / fps:.2g} s)"


def require_positive(**options: float | None) -> None:
    """Refuse options that are given and not above 0, or so large that weights overflow."""
    for name, value in options.items():
        if value is not None and not value > 0:
            raise UserError(f"`weighting.{name}` must be > 0; got {value:g}")
        require_range(name, value, low=0)


def require_range(name: str, value: float | None, *, low: float, high: float = _LARGEST) -> None:
    """Refuse an option that is given and out of its range."""
    if value is not None and not low <= value <= high:
        rule = f">= {low}" if high == _LARGEST and value < low else f"{low}..{high:g}"
        raise UserError(f"`weighting.{name}` must be {rule}; got {value:g}")

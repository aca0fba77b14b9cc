"""What the pictures of an episode look like: pure arithmetic on pixels.

The thresholds are those in common use among dataset tools; docs/recording.md says where each is from.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.motion import find_runs_of
from lerobot_topreward.judging.profile import LEAST_EPISODES
from lerobot_topreward.records import Finding

_BLOCK = 8  # pixels: blocks of so many are averaged before pictures are compared
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_WHITE = 250  # of 255: an overexposed pixel
_MANY_SPANS, _MANY_S, _MANY_SHARE = 3, 3.0, 0.3  # a camera that freezes so much is broken


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """Where a picture is called bad."""

    min_luminance: float = 50  # 0..255, mean of a picture: below it is dark
    max_luminance: float = 230  # 0..255, mean of a picture: above it is overexposed
    max_white: float = 0.2  # 0..1, share of pixels above 250: above it is overexposed
    min_contrast: float = 20  # 0..255, 95th less 5th percentile: below it is flat
    min_sharpness: float = 0.4  # of the median of the camera's episodes, variance of the Laplacian
    frozen_seconds: float = 0.5  # that a picture stays the same while the arm moves
    frozen_change: float = (
        2.0  # 0..255, largest change of a block of 8x8 pixels in a frozen picture
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("min_luminance", "max_luminance", "min_contrast", "frozen_change"):
            if not 0 <= getattr(self, name) <= 255:
                raise UserError(f"`{name}` must be in 0..255; got {getattr(self, name):g}")
        for name in ("max_white", "min_sharpness"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"`{name}` must be in 0..1; got {getattr(self, name):g}")
        if not self.frozen_seconds > 0:
            raise UserError(f"`frozen_seconds` must be > 0; got {self.frozen_seconds:g}")


@dataclass(frozen=True, slots=True)
class PictureNumbers:
    """One camera over one episode, an entry per sampled picture."""

    frame_index: Int64[np.ndarray, " sampled"]
    luminance: Float32[np.ndarray, " sampled"]  # 0..255, mean
    white: Float32[np.ndarray, " sampled"]  # 0..1, share of pixels above 250
    contrast: Float32[np.ndarray, " sampled"]  # 0..255, 95th less 5th percentile
    sharpness: Float32[np.ndarray, " sampled"]  # variance of the Laplacian
    change: Float32[np.ndarray, " sampled"]  # 0..255, largest of a block; nan for the first


def measure_pictures(
    frames: UInt8[np.ndarray, "sampled height width 3"],
    frame_index: Int64[np.ndarray, " sampled"],
    before: UInt8[np.ndarray, "height width 3"] | None,
) -> PictureNumbers:
    """Measure pictures one after the other.

    Args:
        frames: in the order of time.
        frame_index: where in the episode each of them is.
        before: the picture before the first one, None at the start of an episode.
    """
    numbers: list[tuple[float, ...]] = []
    last = None if before is None else _average_blocks(before.astype(np.float32) @ _LUMA)
    for frame in frames:
        gray = frame.astype(np.float32) @ _LUMA
        blocks = _average_blocks(gray)
        low, high = np.percentile(gray, [5, 95])
        numbers.append(
            (
                float(gray.mean()),
                float((gray > _WHITE).mean()),
                float(high - low),
                measure_sharpness(gray),
                np.nan if last is None else float(np.abs(blocks - last).max()),
            )
        )
        last = blocks
    columns = np.array(numbers, dtype=np.float32).reshape(-1, 5).T
    return PictureNumbers(frame_index, *columns)


def measure_sharpness(gray: Float32[np.ndarray, "height width"]) -> float:
    """Variance of the Laplacian: low in a blurred picture; 0 below 3x3 pixels.

    Pech-Pacheco et al. (2000), Diatom autofocusing in brightfield microscopy,
    https://doi.org/10.1109/ICPR.2000.903548.
    """
    if min(gray.shape) < 3:
        return 0.0
    middle = gray[1:-1, 1:-1]
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((around - 4 * middle).var())


def join_numbers(parts: Sequence[PictureNumbers]) -> PictureNumbers:
    """Put the parts of an episode together again."""
    names = PictureNumbers.__dataclass_fields__
    return PictureNumbers(
        **{n: np.concatenate([getattr(part, n) for part in parts]) for n in names}
    )


def find_bad_pictures(
    camera: str,
    pictures: Mapping[int, PictureNumbers],
    idle: Mapping[int, Bool[np.ndarray, " frames"]],
    limits: PictureLimits,
    *,
    fps: float,
) -> Iterator[Finding]:
    """Find episodes whose pictures of one camera are bad.

    An episode is judged by the median of its pictures, so that a moment of glare is none.

    Args:
        camera: its name.
        pictures: of the camera, by episode.
        idle: the frames at which the arm does not move, by episode; no entry: not known.
        limits: where a picture is bad.
        fps: the dataset's clock, Hz.
    """
    sharpness = {e: float(np.median(found.sharpness)) for e, found in pictures.items()}
    usual = float(np.median([*sharpness.values()])) if len(sharpness) >= LEAST_EPISODES else 0.0
    for episode, found in pictures.items():
        luminance, white, contrast = (
            float(np.median(values)) for values in (found.luminance, found.white, found.contrast)
        )
        if luminance < limits.min_luminance:
            text = f"{camera}: mean luminance {luminance:.0f} of 255; at least {limits.min_luminance:g}"
            yield Finding(episode, "suspect", "dark", text)
        if luminance > limits.max_luminance or white > limits.max_white:
            text = (
                f"{camera}: mean luminance {luminance:.0f} of 255, {white:.0%} of the pixels white"
            )
            yield Finding(episode, "suspect", "overexposed", text)
        if contrast < limits.min_contrast:
            text = f"{camera}: contrast {contrast:.0f} of 255; at least {limits.min_contrast:g}"
            yield Finding(episode, "suspect", "low contrast", text)
        elif sharpness[episode] < limits.min_sharpness * usual:
            text = (
                f"{camera}: sharpness {sharpness[episode] / usual:.2f} of the camera's median; at "
                f"least {limits.min_sharpness:g}"
            )
            yield Finding(episode, "suspect", "blurred", text)
        if episode in idle:
            yield from _find_frozen(camera, episode, found, idle[episode], limits, fps=fps)


def _find_frozen(
    camera: str,
    episode: int,
    pictures: PictureNumbers,
    idle: Bool[np.ndarray, " frames"],
    limits: PictureLimits,
    *,
    fps: float,
) -> Iterator[Finding]:
    """Find spans in which the picture stays the same and the arm moves all the while."""
    index = pictures.frame_index
    moved = np.zeros(len(index), dtype=bool)
    for i in range(1, len(index)):
        moved[i] = not idle[index[i - 1] + 1 : index[i] + 1].any()
    frozen = moved & (pictures.change <= limits.frozen_change)
    spans = [
        (int(index[first - 1]), int(index[last]))
        for first, last in find_runs_of(frozen)
        if (index[last] - index[first - 1]) / fps >= limits.frozen_seconds
    ]
    if not spans:
        return
    seconds = sum(last - first for first, last in spans) / fps
    share = seconds * fps / max(len(idle), 1)
    much = len(spans) >= _MANY_SPANS or seconds >= _MANY_S or share >= _MANY_SHARE
    text = (
        f"{camera}: the picture stays the same for {seconds:.1f} s in {len(spans)} spans while the "
        f"arm moves ({share:.0%} of the episode)"
    )
    frames = (spans[0][0], spans[-1][1])
    yield Finding(episode, "broken" if much else "suspect", "frozen camera", text, frames)


def _average_blocks(
    gray: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "rows columns"]:
    height, width = (max(side // _BLOCK, 1) * _BLOCK for side in gray.shape)
    if min(gray.shape) < _BLOCK:
        return gray
    blocks = gray[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return blocks.mean(axis=(1, 3))

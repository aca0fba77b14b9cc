"""Which frames of a segment are shown, and after which of them the question follows."""

import numpy as np
from jaxtyping import Int64


def sample_frames(
    num_frames: int,
    *,
    fps: float,
    sample_fps: float = 2.0,
    final_frame: bool = True,
    max_images: int | None = None,
) -> Int64[np.ndarray, " sampled"]:
    """Choose the frames that are shown: the reference code's "aligned" schedule.

    ``unique(clip(round(arange(0, N, max(fps / sample_fps, 1))), 0, N - 1))``. It can miss the last
    half second, when success happens, so the final frame is added unless told otherwise.

    Args:
        num_frames: N, frames in the segment, >= 1.
        fps: the dataset's clock, Hz.
        sample_fps: frames shown per second, Hz.
        final_frame: also show frame N - 1.
        max_images: keep at most so many of them, >= 2, evenly spread, the first and last among
            them; None keeps all.

    Returns:
        Ascending distinct frame indices in 0..N-1, shape (sampled,).

    Raises:
        ValueError: num_frames < 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be >= 1; got {num_frames}")
    step = max(fps / sample_fps, 1.0)
    indices = np.round(np.arange(0, num_frames, step)).astype(np.int64)
    if final_frame:
        indices = np.append(indices, num_frames - 1)
    indices = np.unique(np.clip(indices, 0, num_frames - 1))
    if max_images is None or len(indices) <= max_images:
        return indices
    return indices[np.round(np.linspace(0, len(indices) - 1, max_images)).astype(np.int64)]


def prefix_lengths(
    num_frames: int, frame_indices: Int64[np.ndarray, " sampled"], *, count: int | None = None
) -> Int64[np.ndarray, " prefixes"]:
    """Choose the prefixes that are scored, in raw frames.

    Args:
        num_frames: N, frames in the segment, >= 1.
        frame_indices: the frames shown, see `sample_frames`.
        count: None scores one per shown frame; K scores the reference code's
            ``set(linspace(1, N, min(K, N), dtype=int))`` (K = 15 in the paper), [N] when N <= 2.

    Returns:
        Ascending distinct lengths in 1..N, shape (prefixes,).

    Raises:
        ValueError: count < 1.
    """
    if count is None:
        return frame_indices + 1
    if count < 1:
        raise ValueError(f"count must be >= 1; got {count}")
    if num_frames <= 2:
        return np.array([num_frames], dtype=np.int64)
    return np.unique(np.linspace(1, num_frames, min(count, num_frames), dtype=np.int64))


def images_shown(
    lengths: Int64[np.ndarray, " prefixes"], frame_indices: Int64[np.ndarray, " sampled"]
) -> Int64[np.ndarray, " prefixes"]:
    """Count the sampled images that a prefix of each raw length shows, at least the first one."""
    return np.maximum(np.searchsorted(frame_indices, lengths, side="left"), 1).astype(np.int64)


def last_frames(
    lengths: Int64[np.ndarray, " prefixes"], frame_indices: Int64[np.ndarray, " sampled"]
) -> Int64[np.ndarray, " prefixes"]:
    """Find the last frame that a prefix of each raw length shows."""
    return frame_indices[images_shown(lengths, frame_indices) - 1]

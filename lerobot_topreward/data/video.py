"""Images in: the sampled frames of a segment, and only those, as uint8."""

import io
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pa_ds
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from lerobot_topreward.data.dataset import Source, find_video
from lerobot_topreward.data.images import image_bytes, read_image_cells
from lerobot_topreward.data.info import first_line
from lerobot_topreward.data.schedule import sample_frames
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, Segment

_Frame = UInt8[np.ndarray, "height width 3"]
_Kept = UInt8[np.ndarray, "_ _ 3"]  # of any size
# Gives what is kept of a frame, given the frame and how many of them a clip has.
Fit = Callable[[_Frame, int], _Kept]
Keep = Callable[[_Frame], _Kept]

# LeRobot's default: a frame belongs to a time when they are less than this apart, in seconds.
TOLERANCE_S = 1e-4


def read_clip(
    source: Source,
    *,
    camera: str,
    segment: Segment,
    sample_fps: float,
    final_frame: bool,
    max_images: int | None = None,
    also: Int64[np.ndarray, " others"] | None = None,
    fit: Fit | None = None,
) -> Clip:
    """Read the frames of a segment that `sample_frames` chooses, the videos being here.

    `also` names frames that are read beside them; `scheduled` of the clip then says which these are.
    `fit` is given each frame and how many there are, and returns what is kept of it: so that no more
    than one frame is in memory at its full size.

    Raises:
        EpisodeError: A file is missing or damaged, or lacks a frame that the dataset promises.
    """
    read = _read_video if camera in source.meta.video_keys else _read_images
    return sample_clip(
        lambda frames, keep: read(
            source, camera, segment.episode_index, segment.start + frames, keep
        ),
        fps=source.meta.fps,
        segment=segment,
        sample_fps=sample_fps,
        final_frame=final_frame,
        max_images=max_images,
        also=also,
        fit=fit,
    )


def sample_clip(
    read: Callable[[Int64[np.ndarray, " sampled"], Keep], UInt8[np.ndarray, "sampled _ _ 3"]],
    *,
    fps: float,
    segment: Segment,
    sample_fps: float,
    final_frame: bool,
    max_images: int | None = None,
    also: Int64[np.ndarray, " others"] | None = None,
    fit: Fit | None = None,
) -> Clip:
    """Make a clip of the frames that `read_clip` chooses, wherever they are read.

    Args:
        read: gives what is kept of frames of the segment, counted within it, ascending.
        fps: the dataset's clock, Hz.
        segment: what is shown.
        sample_fps: see `sample_frames`, as the next two.
        final_frame: also show the last frame.
        max_images: at most so many.
        also: frames that are read beside them.
        fit: see `read_clip`.
    """
    indices = sample_frames(
        segment.length,
        fps=fps,
        sample_fps=sample_fps,
        final_frame=final_frame,
        max_images=max_images,
    )
    scheduled = None if also is None else indices
    if also is not None:
        indices = np.union1d(indices, also)
    size: list[tuple[int, int]] = []

    def keep(frame: _Frame) -> _Kept:
        size[:] = [(frame.shape[0], frame.shape[1])]
        return frame if fit is None else fit(frame, len(indices))

    return Clip(
        segment=segment,
        fps=fps,
        frames=read(indices, keep),
        shown=np.arange(len(indices), dtype=np.int64),
        frame_indices=indices,
        scheduled=scheduled,
        recorded_size=size[0],
    )


def _read_video(
    source: Source,
    camera: str,
    episode: int,
    frames: Int64[np.ndarray, " sampled"],
    keep: Keep,
) -> UInt8[np.ndarray, "sampled _ _ 3"]:
    path, start, following = find_video(source, camera, episode)
    name = path.relative_to(source.root)
    # Episodes share files. Times are exact here, where LeRobot adds the float32 column timestamp.
    fps = source.meta.fps
    times = start + frames / fps
    if times[-1] > following - 0.5 / fps:
        raise EpisodeError(
            f"{name} must show this episode until {times[-1]:.3f} s; another episode begins there "
            f"at {following:.3f} s"
        )
    return read_video(path, times, keep, name=name)


def read_video(
    path: Path, times: Float64[np.ndarray, " sampled"], keep: Keep, *, name: Path
) -> UInt8[np.ndarray, "sampled _ _ 3"]:
    """Decode the frames of a video at ascending times, s, and only those; `name` is for messages.

    Raises:
        EpisodeError: it cannot be decoded, or lacks a frame.
    """
    try:
        with closing(av.open(str(path))) as container:
            reformatter = VideoReformatter()
            images = (
                reformatter.reformat(frame, format="rgb24").to_ndarray()
                for frame in _frames_at(container, times.tolist(), name=name)
            )
            return _stack(images, keep, count=len(times), name=name)
    except (FFmpegError, ValueError) as error:
        why = error.strerror if isinstance(error, FFmpegError) else first_line(error)
        raise EpisodeError(
            f"{name} cannot be decoded ({why}); copy or download the dataset again"
        ) from error


def _frames_at(
    container: InputContainer, times: list[float], *, name: Path
) -> Iterator[av.VideoFrame]:
    """Find the frames at ascending times, in seconds."""
    if not container.streams.video:
        raise EpisodeError(f"{name} cannot be decoded: it has no video stream")
    wanted = deque(times)
    for time, frame in _decode_groups(container, container.streams.video[0], wanted):
        if time <= wanted[0] - TOLERANCE_S:
            continue  # decoded because the frames after it are made from it
        if time >= wanted[0] + TOLERANCE_S:
            raise EpisodeError(
                f"{name} has no frame at {wanted[0]:.4f} s, the next one is at {time:.4f} s"
            )
        yield frame
        wanted.popleft()
        if not wanted:
            return
    raise EpisodeError(f"{name} is cut short: it has no frame at {wanted[0]:.4f} s or later")


def _decode_groups(
    container: InputContainer, stream: av.VideoStream, wanted: deque[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decode the groups of pictures that show the first time in `wanted`.

    A video is a row of groups of pictures. Each begins with a keyframe, which is decoded by itself;
    the others are made from pictures of their group. So a picture costs the decoding of its group
    up to it, and a group that shows no wanted time costs nothing. LeRobot's encoder sets a keyframe
    every second frame: at 2 fps, thirteen of fifteen pictures need no decoding. LeRobot decodes all
    of them and keeps them as tensors, half a gigabyte for 20 s of 640x480 at 30 fps.
    https://github.com/huggingface/lerobot/blob/main/src/lerobot/datasets/video_utils.py

    Args:
        container: the video.
        stream: of the container.
        wanted: ascending times, s; the caller removes what it has found.

    Yields:
        Times and frames in the order of presentation, unwanted ones among them.
    """
    decoder, unit = stream.codec_context, stream.time_base
    assert unit is not None  # libav sets it for every demuxed stream
    decoder.thread_count = 1  # the other cores are the model's

    # Seeking leads to the keyframe at or before this time; one unit earlier is LeRobot's margin.
    container.seek(round(wanted[0] / unit) - 1, stream=stream)

    # Packets are compressed pictures in the order of decoding: a keyframe, then its group. Where
    # pictures are also made from later ones, that differs from the order of their times (pts).
    waiting: list[av.Packet] = []  # of the current group, not decoded so far
    for packet in container.demux(stream):
        # The last packet is empty and has no time; decoding it gives the pictures still held back.
        time = np.inf if packet.pts is None else float(packet.pts * unit)
        if packet.is_keyframe and waiting and time < wanted[0] + TOLERANCE_S:
            # The wanted picture is this keyframe or comes later: skip the group before it.
            waiting.clear()
            decoder.flush_buffers()
        waiting.append(packet)
        if time > wanted[0] - TOLERANCE_S:
            # The wanted picture is here, or was: decode up to here. The decoder gives frames in
            # the order of their times, with a delay where it has to reorder them.
            for needed in waiting:
                for frame in decoder.decode(needed):
                    yield -np.inf if frame.pts is None else float(frame.pts * unit), frame
            waiting.clear()


def _read_images(
    source: Source,
    camera: str,
    episode: int,
    frames: Int64[np.ndarray, " sampled"],
    keep: Keep,
) -> UInt8[np.ndarray, "sampled _ _ 3"]:
    name = Path(source.meta.name_files(None)[episode])
    rows = (pa_ds.field("episode_index") == episode) & pa_ds.field("frame_index").isin(frames)
    try:
        cells = read_image_cells(source.root / name, camera, rows)
        images = (_decode_image(cell, root=source.root, name=name) for _, cell in cells)
        return _stack(images, keep, count=len(frames), name=name)
    except (pa.ArrowException, OSError) as error:
        raise EpisodeError(f"{name} cannot be read: {error}") from error


def _decode_image(cell: Any, *, root: Path, name: Path) -> UInt8[np.ndarray, "height width 3"]:
    try:
        with Image.open(io.BytesIO(image_bytes(cell, root=root))) as image:
            if image.mode[0] in "IF":  # 16 and 32 bits: PIL would clip them to white
                raise EpisodeError(f"{name} must hold 8-bit color images; got mode {image.mode}")
            return np.asarray(image.convert("RGB"))
    except EpisodeError:
        raise
    except Exception as error:  # PIL raises anything at a damaged or oversized picture
        raise EpisodeError(f"{name} holds an unreadable image: {first_line(error)}") from error


def _stack(
    images: Iterator[_Frame], keep: Keep, *, count: int, name: Path
) -> UInt8[np.ndarray, "count _ _ 3"]:
    first = next(images, None)
    if first is None:
        raise EpisodeError(f"{name} must hold {count} frames of this episode; it has none")
    kept = keep(first)
    stacked = np.empty((count, *kept.shape), dtype=np.uint8)
    stacked[0], found = kept, 1
    for image in images:
        if image.shape != first.shape:
            raise EpisodeError(
                f"{name} must hold images of one size; got {first.shape} and {image.shape}"
            )
        stacked[found], found = keep(image), found + 1
    if found != count:
        raise EpisodeError(f"{name} must hold {count} frames of this episode; it has {found}")
    return stacked

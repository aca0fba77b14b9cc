"""The video of one episode, cut out of its file and made small enough for a page."""

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lerobot_topreward.data.prefetch import work_ahead
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Segment
from lerobot_topreward.report.media import (
    AHEAD,
    EpisodeMedia,
    Footage,
    NoPictures,
    Video,
    fitted,
    make_thumbnail,
)

_MOST_FPS = 30.0  # Hz
_BEST_RATE = 200_000  # bits per second: enough for the widest
_LEAST_RATE = 6_000
# At least so many bits per second for a longer side of so many px.
_RUNGS = ((80_000, 320), (40_000, 240), (_LEAST_RATE, 160))
_FRAME_BYTES = 16  # of MP4's tables
_FILE_BYTES = 2_000
_BUFFER_S = 1.0  # by which x264 may exceed a rate, once for each video
_MARGIN = 0.95  # for what it does not keep to the byte


def read_videos(
    footage: Footage, *, room: int, done: Callable[[int], None]
) -> dict[int, EpisodeMedia]:
    """Make a video of every episode, as good as there is room for.

    Args:
        footage: whose pictures.
        room: bytes for all of them.
        done: told of every finished episode by its frames.

    Returns:
        What there is of each episode.
    """
    fps = float(footage.source.meta.fps)
    every = max(1, round(fps / _MOST_FPS))
    # One part each: a video must not repeat the last frame of a segment.
    parts = {i: [Segment(i, 0, footage.frames(i), "")] for i in footage.episodes}
    footage = replace(footage, episodes=parts)
    frames = sum(footage.frames(episode) for episode in footage.episodes)
    seconds = frames / fps + _BUFFER_S * len(parts)
    tables = _FRAME_BYTES * frames // every + _FILE_BYTES * len(footage.episodes)
    rate = min(_BEST_RATE, round(_MARGIN * 8 * (room - tables) / seconds))
    longer = next((longer for least, longer in _RUNGS if rate >= least), None)

    def make(episode: int) -> EpisodeMedia:
        if longer is None:
            return EpisodeMedia(NoPictures("there is no room for its video within --max-mb"))
        pictures = (frame for _, frame in footage.read(episode, sample_fps=fps / every))
        try:
            return encode(pictures, fps=fps / every, longer=longer, rate=rate)
        except EpisodeError as error:
            return EpisodeMedia(NoPictures(str(error)))

    media = {}
    for episode, found in work_ahead(make, footage.in_order_of_files(), ahead=AHEAD):
        media[episode] = found
        done(footage.frames(episode))
    return media


def encode(
    frames: Iterable[UInt8[np.ndarray, "height width 3"]], *, fps: float, longer: int, rate: int
) -> EpisodeMedia:
    """Encode frames as H.264, which every browser plays.

    Args:
        frames: of one size, at least one.
        fps: Hz.
        longer: at most so many px for the longer side.
        rate: at most so many bits per second.

    Raises:
        EpisodeError: there is no frame.
    """
    waiting = iter(frames)
    first = next(waiting, None)
    if first is None:
        raise EpisodeError("it has no frames")
    size, last = fitted((first.shape[1], first.shape[0]), longer), first
    clock = Fraction(fps).limit_denominator(100_000)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=clock, options=_options(fps, rate))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # episodes are encoded beside each other
        stream.codec_context.time_base = 1 / clock
        for number, frame in enumerate(chain([first], waiting)):
            last = frame
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(*size, format="yuv420p")
            picture.pts, picture.time_base = number, 1 / clock
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    video = Video(buffer.getvalue(), *size)
    return EpisodeMedia(video, make_thumbnail(Image.fromarray(last)))


def _options(fps: float, rate: int) -> dict[str, str]:
    return {
        "preset": "veryfast",
        "crf": "27",
        "maxrate": str(rate),
        "bufsize": str(round(_BUFFER_S * rate)),
        "g": str(max(1, round(fps / 2))),  # a cursor jumps: no more than half a second to decode
        "bf": "0",  # so that times in the file are times of the episode
    }

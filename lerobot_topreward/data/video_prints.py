"""Hashes of an episode's first and last pictures, which tell whether its video was replaced."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, takewhile
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.dataset as pa_ds
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from lerobot_topreward.data.dataset import Source, data_files, find_video
from lerobot_topreward.data.images import image_bytes, read_image_cells
from lerobot_topreward.errors import EpisodeError

_PACKETS = 4  # compressed pictures hashed at each end of an episode


def video_prints(source: Source, *, camera: str, episodes: Sequence[int]) -> dict[int, str]:
    """Hash the first and the last compressed pictures of episodes, as one camera saw them.

    For images in ``data/`` these are the first and the last one. Whoever encodes or records an
    episode again changes them; whoever appends an episode to the same file, cuts the file elsewhere
    or renames it does not. Episodes whose video is not here or cannot be read are left out.
    """
    rows = {episode: source.frames.rows(episode) for episode in episodes}
    ends = {i: (span.start, span.stop - 1) for i, span in rows.items() if span.start < span.stop}
    if camera not in source.meta.video_keys:
        return _image_prints(source, camera, ends)
    places: dict[Path, list[tuple[int, float, float]]] = {}
    for episode, (first, last) in ends.items():
        with suppress(EpisodeError):
            path, start, _ = find_video(source, camera, episode)
            end = start + (last - first) / source.meta.fps
            places.setdefault(path, []).append((episode, start, end))
    prints = {}
    for path, spans in places.items():
        # Decoding says what is wrong with a video that cannot be hashed.
        with suppress(FFmpegError, OSError, IndexError), av.open(str(path)) as container:
            stream = container.streams.video[0]
            for episode, start, end in spans:
                with suppress(FFmpegError, ValueError):
                    prints[episode] = _hash_ends(container, stream, start, end)
    return prints


def _hash_ends(container: InputContainer, stream: VideoStream, start: float, end: float) -> str:
    digest = hashlib.sha256()
    unit = stream.time_base
    assert unit is not None  # libav sets it for every demuxed stream
    first, last = round(start / unit), round(end / unit)
    for time in (first, last):
        container.seek(time, stream=stream)  # to the keyframe at or before it
        # In a file that episodes share, the pictures around these are the neighbors'. Packets
        # come in the order of decoding, none later than it is shown: so the episode is over, and
        # the rest of the file need not be read, when one is decoded after its end.
        packets = takewhile(lambda p: p.dts is None or p.dts <= last, container.demux(stream))
        own = (p for p in packets if p.pts is None or first <= p.pts <= last)
        for packet in islice(own, _PACKETS):
            digest.update(bytes(packet))
    return digest.hexdigest()


def _image_prints(source: Source, camera: str, ends: dict[int, tuple[int, int]]) -> dict[int, str]:
    """Hash the pictures in ``data/`` at the first and the last row of each episode."""
    wanted = pa_ds.field("index").isin(sorted({row for pair in ends.values() for row in pair}))
    found: dict[int, bytes] = {}
    for path in data_files(source):
        with suppress(pa.ArrowException, OSError):  # decoding says what is wrong with it
            for index, cell in read_image_cells(path, camera, wanted):
                with suppress(EpisodeError):
                    found[index] = hashlib.sha256(image_bytes(cell, root=source.root)).digest()
    return {
        episode: (found[first] + found[last]).hex()
        for episode, (first, last) in ends.items()
        if first in found and last in found
    }

"""The pictures of an episode, small enough for a page: a strip of frames and a thumbnail."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.prefetch import work_ahead
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Segment

MAX_PICTURES = 120  # of a strip
_FEWEST_PICTURES = 4
_THUMBNAIL = 96  # px
_SMALLEST_PICTURE = 1100  # bytes, roughly, at the lowest quality level
_AROUND = 600  # bytes: what a page says of a strip takes as much room
# Longer side in px and WebP quality, best first.
_LEVELS = ((400, 70), (320, 70), (320, 50), (240, 50), (240, 30), (160, 30), (96, 30))
_NO_ROOM = "there is no room within `max_mb`"
_AT_ONCE = 48  # full frames in memory
_AHEAD = 2  # episodes read while one is encoded
_COLUMNS = 10  # of a sheet


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of one episode, row after row on one sheet."""

    data: bytes  # WebP
    frames: Int64[np.ndarray, " pictures"]  # of the episode, ascending
    columns: int
    width: int  # px, of one picture
    height: int


@dataclass(frozen=True, slots=True)
class EpisodeMedia:
    """What a page shows of one episode."""

    strip: Strip | None = None
    thumbnail: bytes | None = None  # WebP, of the last frame
    reason: str | None = None  # why there is no strip


@dataclass(frozen=True, slots=True)
class Footage:
    """Where the pictures of a dataset come from."""

    source: Source
    camera: str  # feature key
    episodes: Mapping[int, Sequence[Segment]]  # in order, each covered by its segments

    def frames(self, episode: int) -> int:
        """How long an episode is, in frames."""
        return sum(part.length for part in self.episodes[episode])

    def in_order_of_files(self) -> list[int]:
        """The episodes as they lie in the dataset's files."""
        meta = self.source.meta
        if self.camera not in meta.video_keys:
            files = meta.name_files(None)
            return sorted(self.episodes, key=lambda i: (files[i], i))
        files, starts = self.source.videos[self.camera]
        return sorted(self.episodes, key=lambda i: (files[i], starts[i] or 0))

    def read(
        self, episode: int, *, sample_fps: float
    ) -> Iterator[tuple[int, UInt8[np.ndarray, "height width 3"]]]:
        """Read the frames of an episode, few at a time.

        Yields:
            The index of each frame in the episode, and its image.

        Raises:
            EpisodeError: a video is missing or damaged.
        """
        span = max(1, round(_AT_ONCE * max(1.0, self.source.meta.fps / sample_fps)))
        for part in self.episodes[episode]:
            for start in range(part.start, part.start + part.length, span):
                length = min(span, part.start + part.length - start)
                clip = read_clip(
                    self.source,
                    camera=self.camera,
                    segment=Segment(episode, start, length, part.instruction),
                    sample_fps=sample_fps,
                    final_frame=start + length == part.start + part.length,
                )
                yield from zip((start + clip.frame_indices).tolist(), clip.frames, strict=True)


def read_strips(
    footage: Footage,
    *,
    sample_fps: float,
    budget: int,
    done: Callable[[int], None],
    first: Sequence[int] = (),
) -> dict[int, EpisodeMedia]:
    """Make a strip of every episode, as good as the budget allows, in bytes for all of them.

    Args:
        footage: where the pictures come from.
        sample_fps: pictures per second, Hz; fewer for very long or very many episodes.
        budget: bytes. Where it is too little for a few pictures of every episode, only as many
            episodes have any as there is room for.
        done: is called with the frames of every finished episode.
        first: episodes whose pictures are wanted most, in this order.
    """
    order = list(dict.fromkeys([*first, *footage.episodes]))
    room = budget // (_SMALLEST_PICTURE * (_FEWEST_PICTURES + 1) + _AROUND)
    media = {}
    for episode in order[room:]:
        media[episode] = EpisodeMedia(reason=_NO_ROOM)
        done(footage.frames(episode))
    lengths = {episode: footage.frames(episode) for episode in order[:room]}
    most = (budget // max(1, len(lengths)) - _AROUND) // _SMALLEST_PICTURE
    most = min(MAX_PICTURES, max(_FEWEST_PICTURES, most))

    def read(episode: int) -> tuple[list[int], list[Image.Image]]:
        fps = min(sample_fps, most * footage.source.meta.fps / lengths[episode])
        indices, pictures = [], []
        for index, frame in footage.read(episode, sample_fps=fps):
            picture = Image.fromarray(frame)
            size = fit_size(picture.size, _LEVELS[0][0])
            indices.append(index)
            pictures.append(picture.resize(size, Image.Resampling.BILINEAR))
        return indices, pictures

    level, frames_left = 0, sum(lengths.values())
    in_order = [episode for episode in footage.in_order_of_files() if episode in lengths]
    for episode, frames in work_ahead(read, in_order, ahead=_AHEAD):
        if isinstance(frames, EpisodeError):
            media[episode] = EpisodeMedia(reason=str(frames))
        else:
            # An episode's share of the budget grows with its length. What one leaves over is there
            # for the others, so each begins a level above that of the one before it.
            share = budget * lengths[episode] // frames_left
            thumbnail = make_thumbnail(frames[1][-1])
            level = max(0, level - 1)
            least = len(thumbnail) + _AROUND
            strip = make_strip(*frames, *_LEVELS[level])
            while len(strip.data) + least > share and level + 1 < len(_LEVELS):
                level += 1
                strip = make_strip(*frames, *_LEVELS[level])
            if len(strip.data) + least <= share:
                media[episode] = EpisodeMedia(strip, thumbnail)
                budget -= len(strip.data) + least
            else:
                kept = thumbnail if least <= share else None
                media[episode] = EpisodeMedia(None, kept, _NO_ROOM)
                budget -= len(kept or b"")
        frames_left -= lengths[episode]
        done(lengths[episode])
    return media


def make_strip(
    indices: Sequence[int], pictures: Sequence[Image.Image], longer: int, quality: int
) -> Strip:
    """Lay pictures of one size, at least one, out on a WebP sheet of this quality, 0..100.

    `indices` are the frames that they show; `longer` limits the longer side of each, px.
    """
    width, height = fit_size(pictures[0].size, longer)
    columns = min(_COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height))
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        sheet.paste(picture.resize((width, height)), (column * width, row * height))
    data = _encode(sheet, quality=quality)
    return Strip(data, np.array(indices, dtype=np.int64), columns, width, height)


def make_thumbnail(picture: Image.Image) -> bytes:
    """A picture for the list of episodes, as WebP."""
    return _encode(picture.resize(fit_size(picture.size, _THUMBNAIL)), quality=50)


def fit_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """Width and height, both even, whose longer side is at most so many px."""
    scale = min(1.0, longer / max(size))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in size)
    return width, height


def _encode(picture: Image.Image, *, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)  # 2: a third of the time of the best
    return buffer.getvalue()

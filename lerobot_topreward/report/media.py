"""The pictures of an episode, small enough for a page: a strip of frames, or its video."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from lerobot_topreward.data.dataset import Source, episode_rows
from lerobot_topreward.data.prefetch import work_ahead
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Segment

MAX_PICTURES = 120  # of a strip
_FEWEST_PICTURES = 4
_WIDEST = 400  # px
_THUMBNAIL = 96  # px
_SMALLEST_PICTURE = 1100  # bytes, roughly, at the last of the rungs
# Longer side in px and WebP quality, from the best on.
_RUNGS = ((400, 70), (320, 70), (320, 50), (240, 50), (240, 30), (160, 30), (96, 30))
_AT_ONCE = 48  # full frames in memory
AHEAD = 2  # episodes read while one is encoded
_COLUMNS = 10  # of a sheet

Frames = UInt8[np.ndarray, "frames height width 3"]


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures of one episode, row after row on one sheet."""

    data: bytes  # WebP
    frames: Int64[np.ndarray, " pictures"]  # of the episode, ascending
    columns: int
    width: int  # px, of one picture
    height: int


@dataclass(frozen=True, slots=True)
class Video:
    """The video of one episode alone, from its first frame at 0 s on."""

    data: bytes  # MP4, H.264
    width: int  # px
    height: int


@dataclass(frozen=True, slots=True)
class NoPictures:
    """Why an episode has none."""

    reason: str


@dataclass(frozen=True, slots=True)
class EpisodeMedia:
    """What a page shows of one episode."""

    pictures: Strip | Video | NoPictures
    thumbnail: bytes | None = None  # WebP, of the last frame


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
            return sorted(self.episodes, key=lambda i: (str(meta.get_data_file_path(i)), i))
        starts = episode_rows(meta)[f"videos/{self.camera}/from_timestamp"]
        return sorted(
            self.episodes,
            key=lambda i: (str(meta.get_video_file_path(i, self.camera)), starts[i] or 0),
        )

    def read(self, episode: int, *, sample_fps: float) -> Iterator[tuple[int, Frames]]:
        """Read the frames of an episode, few at a time.

        Yields:
            Frames of the episode with the index of each.

        Raises:
            EpisodeError: a video is missing or damaged.
        """
        fps = self.source.meta.fps
        span = max(1, round(_AT_ONCE * max(1.0, fps / sample_fps)))
        for part in self.episodes[episode]:
            for start in range(0, part.length, span):
                last = start + span >= part.length
                piece = Segment(
                    episode, part.start + start, min(span, part.length - start), part.instruction
                )
                clip = read_clip(
                    self.source,
                    camera=self.camera,
                    segment=piece,
                    sample_fps=sample_fps,
                    final_frame=last,
                )
                yield from zip(
                    (piece.start + clip.frame_indices).tolist(), clip.frames, strict=True
                )


def read_strips(
    footage: Footage, *, sample_fps: float, room: int, done: Callable[[int], None]
) -> dict[int, EpisodeMedia]:
    """Make a strip of every episode, as good as there is room for.

    Args:
        footage: whose pictures.
        sample_fps: pictures per second, Hz; fewer for very long or very many episodes.
        room: bytes for all of them.
        done: told of every finished episode by its frames.

    Returns:
        What there is of each episode.
    """
    lengths = {episode: footage.frames(episode) for episode in footage.episodes}
    most = room // (_SMALLEST_PICTURE * max(1, len(lengths)))
    most = min(MAX_PICTURES, max(_FEWEST_PICTURES, most))
    fps = footage.source.meta.fps

    def read(episode: int) -> tuple[list[int], list[Image.Image]] | EpisodeError:
        slow = most * fps / lengths[episode]
        try:
            found = footage.read(episode, sample_fps=min(sample_fps, slow))
            pairs = [(index, _shrink(frame, _WIDEST)) for index, frame in found]
        except EpisodeError as error:
            return error
        return [index for index, _ in pairs], [picture for _, picture in pairs]

    media, rung, frames_left = {}, 0, sum(lengths.values())
    for episode, found in work_ahead(read, footage.in_order_of_files(), ahead=AHEAD):
        if isinstance(found, EpisodeError):
            media[episode] = EpisodeMedia(NoPictures(str(found)))
        else:
            # What one episode leaves over is there for the others; try better rungs again.
            share = room * lengths[episode] // frames_left
            media[episode], rung = _fit(*found, share=share, rung=max(0, rung - 1))
            room -= _size(media[episode])
        frames_left -= lengths[episode]
        done(lengths[episode])
    return media


def _fit(
    indices: Sequence[int], pictures: Sequence[Image.Image], *, share: int, rung: int
) -> tuple[EpisodeMedia, int]:
    """The best sheet within a share of the room, and the rung of the ladder that it is on."""
    thumbnail = make_thumbnail(pictures[-1])
    for place in range(rung, len(_RUNGS)):
        strip = make_strip(indices, pictures, longer=_RUNGS[place][0], quality=_RUNGS[place][1])
        if len(strip.data) + len(thumbnail) <= share:
            return EpisodeMedia(strip, thumbnail), place
    reason = "there is no room for its pictures within --max-mb"
    kept = thumbnail if len(thumbnail) <= share else None
    return EpisodeMedia(NoPictures(reason), kept), len(_RUNGS) - 1


def make_strip(
    indices: Sequence[int], pictures: Sequence[Image.Image], *, longer: int, quality: int
) -> Strip:
    """Lay pictures out on one sheet.

    Args:
        indices: the frame of the episode that each shows.
        pictures: of one size, at least one.
        longer: at most so many px for the longer side of each.
        quality: of WebP, 0..100.
    """
    width, height = fitted(pictures[0].size, longer)
    columns = min(_COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        sheet.paste(picture.resize((width, height)), (column * width, row * height))
    data = _webp(sheet, quality=quality)
    return Strip(data, np.array(indices, dtype=np.int64), columns, width, height)


def make_thumbnail(picture: Image.Image) -> bytes:
    """A picture for the list of episodes, as WebP."""
    return _webp(picture.resize(fitted(picture.size, _THUMBNAIL)), quality=50)


def fitted(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """Width and height, both even, whose longer side is at most so many px."""
    scale = min(1.0, longer / max(size))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in size)
    return width, height


def _shrink(frame: UInt8[np.ndarray, "height width 3"], longer: int) -> Image.Image:
    picture = Image.fromarray(frame)
    return picture.resize(fitted(picture.size, longer), Image.Resampling.BILINEAR)


def _webp(picture: Image.Image, *, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)  # 2: a third of the time of the best
    return buffer.getvalue()


def _size(media: EpisodeMedia) -> int:
    pictures = 0 if isinstance(media.pictures, NoPictures) else len(media.pictures.data)
    return pictures + len(media.thumbnail or b"")

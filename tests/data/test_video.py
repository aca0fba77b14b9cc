import shutil
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.video_utils import decode_video_frames
from PIL import Image

from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.data.prefetch import work_ahead
from lerobot_topreward.data.video import read_clip
from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, Segment

CAMERA = "observation.images.front"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
LENGTHS = (23, 9, 30)


@pytest.fixture(scope="module")
def h264(record_dataset) -> Path:
    return record_dataset(lengths=LENGTHS, cameras=("front",), fps=10)


@pytest.fixture(scope="module")
def av1(record_dataset) -> Path:
    return record_dataset(lengths=(23, 9), cameras=("front",), fps=10, vcodec="libsvtav1")


@pytest.fixture(scope="module")
def images(record_dataset) -> Path:
    return record_dataset(lengths=LENGTHS, cameras=("front",), fps=10, video=False)


@pytest.fixture
def dataset(h264, tmp_path) -> Path:
    return shutil.copytree(h264, tmp_path / "dataset")


def opened(root: Path) -> Source:
    return open_source(repo_id=None, root=root, revision=None)


def clip_of(root: Path, segment: Segment, *, sample_fps: float = 2.0) -> Clip:
    return read_clip(
        opened(root), camera=CAMERA, segment=segment, sample_fps=sample_fps, final_frame=True
    )


def as_lerobot(root: Path, clip: Clip, *, backend: str = "pyav") -> np.ndarray:
    meta = LeRobotDatasetMetadata("local/x", root=root)
    episode = clip.segment.episode_index
    assert meta.episodes is not None
    start = meta.episodes[episode][f"videos/{CAMERA}/from_timestamp"]
    times = [start + (clip.segment.start + int(i)) / meta.fps for i in clip.frame_indices]
    path = root / meta.get_video_file_path(episode, CAMERA)
    frames = decode_video_frames(path, times, 1e-4, backend, return_uint8=True)
    return frames.permute(0, 2, 3, 1).numpy()


def reencode(path: Path, *, gop: int, drop: range = range(0)) -> None:
    """Encode a video again with another distance between keyframes, perhaps without some frames."""
    source = av.open(str(path))
    frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    source.close()
    with av.open(str(path), "w") as target:
        stream = target.add_stream("h264", rate=10, options={"g": str(gop), "crf": "30"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for i, image in enumerate(frames):
            if i not in drop:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 10)
                target.mux(stream.encode(frame))
        target.mux(stream.encode())


def whole(episode: int, length: int) -> Segment:
    return Segment(episode, 0, length, "pick up the cube")


def test_schedule_and_shapes(h264):
    clip = clip_of(h264, whole(0, 23))
    assert clip.frame_indices.tolist() == [0, 5, 10, 15, 20, 22]
    assert clip.shown.tolist() == [0, 1, 2, 3, 4, 5]
    assert (clip.frames.shape, clip.frames.dtype, clip.fps) == ((6, 64, 96, 3), np.uint8, 10)
    assert len(np.unique(clip.frames.reshape(6, -1), axis=0)) == 6


@pytest.mark.parametrize("sample_fps", [2.0, 3.7, 10.0])
@pytest.mark.parametrize("segment", [whole(0, 23), whole(1, 9), whole(2, 30)])
def test_h264_pixels_are_lerobots(h264, segment, sample_fps):
    clip = clip_of(h264, segment, sample_fps=sample_fps)
    np.testing.assert_array_equal(clip.frames, as_lerobot(h264, clip))


def test_av1_pixels_are_lerobots(av1):
    for segment in (whole(0, 23), whole(1, 9)):
        clip = clip_of(av1, segment)
        np.testing.assert_array_equal(clip.frames, as_lerobot(av1, clip))


def test_pixels_are_torchcodecs(h264):
    try:
        import torchcodec  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec cannot be loaded: {error}")
    clip = clip_of(h264, whole(2, 30))
    difference = clip.frames.astype(int) - as_lerobot(h264, clip, backend="torchcodec")
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("gop", [1, 7, 250])
def test_pixels_are_lerobots_whatever_the_distance_between_keyframes(dataset, gop):
    reencode(dataset / VIDEO, gop=gop)  # x264 also reorders frames
    for segment, sample_fps in ((whole(1, 9), 4.0), (Segment(2, 11, 14, "x"), 1.0)):
        clip = clip_of(dataset, segment, sample_fps=sample_fps)
        np.testing.assert_array_equal(clip.frames, as_lerobot(dataset, clip))


def test_frames_are_those_that_lerobot_trains_on(h264):
    dataset = LeRobotDataset("local/x", root=h264, video_backend="pyav", return_uint8=True)
    clip = clip_of(h264, Segment(2, 4, 26, "x"))
    for image, index in zip(clip.frames, clip.frame_indices, strict=True):
        sample: Any = dataset[23 + 9 + 4 + int(index)]
        np.testing.assert_array_equal(image, sample[CAMERA].permute(1, 2, 0).numpy())


def test_a_segment_begins_within_its_episode(h264):
    clip = clip_of(h264, Segment(2, 20, 10, "x"), sample_fps=10)
    np.testing.assert_array_equal(
        clip.frames, clip_of(h264, whole(2, 30), sample_fps=10).frames[20:]
    )
    assert clip.frame_indices.tolist() == list(range(10))


def test_images_in_data_are_exact(images):
    clip = clip_of(images, Segment(1, 3, 6, "x"))
    stored = pq.read_table(images / "data/chunk-000/file-000.parquet")[CAMERA].to_pylist()
    assert clip.frame_indices.tolist() == [0, 5]
    for image, row in zip(clip.frames, (23 + 3, 23 + 8), strict=True):
        with Image.open(pa.BufferReader(stored[row]["bytes"])) as expected:
            np.testing.assert_array_equal(image, np.asarray(expected))


@pytest.mark.parametrize(
    ("mode", "message"),
    [("I;16", "must hold 8-bit color images; got mode I;16"), ("L", None), ("RGBA", None)],
)
def test_images_of_other_modes(images, tmp_path, mode, message):
    root = shutil.copytree(images, tmp_path / "dataset")
    path = root / "data/chunk-000/file-000.parquet"
    Image.new(mode, (96, 64)).save(root / "image.png")
    table = pq.read_table(path)
    place = table.schema.get_field_index(CAMERA)
    cells = pa.array([{"bytes": None, "path": "image.png"}] * sum(LENGTHS))
    pq.write_table(
        table.set_column(
            place, table.schema.field(place), cells.cast(table.schema.field(place).type)
        ),
        path,
    )
    if message is None:
        assert clip_of(root, whole(1, 9)).frames.shape == (3, 64, 96, 3)
    else:
        with pytest.raises(EpisodeError, match=message):
            clip_of(root, whole(1, 9))


def test_a_missing_image(images, tmp_path):
    root = shutil.copytree(images, tmp_path / "dataset")
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 30), path)
    with pytest.raises(EpisodeError, match=r"data/.*parquet must hold 3 frames .* it has 2"):
        clip_of(root, whole(1, 9))
    with pytest.raises(EpisodeError, match=r"must hold 7 frames .* it has none"):
        clip_of(root, whole(2, 30))
    path.unlink()
    with pytest.raises(EpisodeError, match=r"data/.*parquet cannot be read"):
        clip_of(root, whole(0, 23))


def test_a_missing_video(dataset):
    (dataset / VIDEO).unlink()
    with pytest.raises(EpisodeError, match=rf"^{VIDEO} is missing"):
        clip_of(dataset, whole(0, 23))


def test_a_video_that_goes_away_while_it_is_looked_for_is_missing(dataset, monkeypatch):
    source = opened(dataset)
    (dataset / VIDEO).unlink()
    looks = iter([True, False])
    monkeypatch.setattr("lerobot_topreward.data.info.os.path.lexists", lambda path: next(looks))
    with pytest.raises(EpisodeError, match=rf"^{VIDEO} is missing"):
        read_clip(source, camera=CAMERA, segment=whole(1, 9), sample_fps=2, final_frame=True)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5])
def test_a_truncated_video(dataset, kept):
    content = (dataset / VIDEO).read_bytes()
    (dataset / VIDEO).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(EpisodeError, match=rf"^{VIDEO} (cannot be decoded|is cut short)"):
        clip_of(dataset, whole(2, 30))


def test_a_video_without_the_frames_that_data_promises(dataset):
    reencode(dataset / VIDEO, gop=5, drop=range(10, 12))
    with pytest.raises(
        EpisodeError, match=r"has no frame at 1\.0000 s, the next one is at 1\.2000"
    ):
        clip_of(dataset, whole(0, 23))
    assert len(clip_of(dataset, whole(1, 9)).frames) == 3


def test_a_video_that_ends_early(dataset):
    reencode(dataset / VIDEO, gop=5, drop=range(60, 62))
    with pytest.raises(EpisodeError, match=r"is cut short: it has no frame at 6\.1000 s"):
        clip_of(dataset, whole(2, 30))


def test_an_episode_longer_than_its_video_does_not_show_the_next_one(h264):
    with pytest.raises(
        EpisodeError, match=r"until 2\.300 s; another episode begins there at 2\.300 s"
    ):
        clip_of(h264, whole(0, 24))


def test_frames_are_lerobots_where_to_timestamp_is_the_last_frames_own_time(dataset):
    (path,) = dataset.glob("meta/episodes/*/*.parquet")
    table = pq.read_table(path)
    end = f"videos/{CAMERA}/to_timestamp"
    place = table.schema.get_field_index(end)
    values = [value - 0.1 for value in table[end].to_pylist()]
    pq.write_table(table.set_column(place, end, pa.array(values)), path)
    for segment in (whole(0, 23), whole(1, 9), whole(2, 30)):
        clip = clip_of(dataset, segment)
        np.testing.assert_array_equal(clip.frames, as_lerobot(dataset, clip))


def every_clip(source: Source, segments: list[Segment], **options):
    def read(segment: Segment) -> Clip:
        return read_clip(source, camera=CAMERA, segment=segment, sample_fps=2, final_frame=True)

    return work_ahead(read, segments, **options)


@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_clips_come_in_order_and_failures_among_them(h264, ahead):
    segments = [whole(2, 30), whole(0, 24), whole(1, 9), whole(0, 23)]
    found = list(every_clip(opened(h264), segments, ahead=ahead))
    assert [segment for segment, _ in found] == segments
    assert isinstance(found[1][1], EpisodeError)
    for segment, clip in (found[0], found[2], found[3]):
        assert isinstance(clip, Clip)
        assert clip.segment == segment
        np.testing.assert_array_equal(clip.frames, clip_of(h264, segment).frames)


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_no_thread_outlives_a_caller_that_stops_early(h264):
    clips = every_clip(opened(h264), [whole(2, 30)] * 50)
    next(clips)
    assert decoding_threads()
    clips.close()
    assert not decoding_threads()


def test_nothing_is_decoded_far_ahead(dataset):
    clips = every_clip(opened(dataset), [whole(1, 9)] * 9)
    next(clips)
    (dataset / VIDEO).unlink()  # the caller has one clip, two more may be under way
    failed = [isinstance(clip, EpisodeError) for _, clip in clips]
    assert failed[2:] == [True] * 6


@pytest.mark.parametrize("kind", ["h264", "images"])
def test_what_is_kept_of_a_frame_is_decided_when_it_is_decoded(kind, request):
    source = opened(request.getfixturevalue(kind))
    given: list[np.ndarray] = []

    def fit(frame: np.ndarray, count: int) -> np.ndarray:
        given.append(frame.copy())
        assert count == 6
        return frame[::2, ::2]

    segment = whole(0, 23)
    options: dict[str, Any] = {"camera": CAMERA, "sample_fps": 2, "final_frame": True}
    clip = read_clip(source, segment=segment, fit=fit, **options)
    full = read_clip(source, segment=segment, **options)
    np.testing.assert_array_equal(np.stack(given), full.frames)
    np.testing.assert_array_equal(clip.frames, full.frames[:, ::2, ::2])
    assert clip.size == full.size == full.frames.shape[1:3]
    assert clip.frames.base is None  # no view of what was decoded

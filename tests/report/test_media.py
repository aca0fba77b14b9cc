"""The pictures of a page: which frames they show, within which room, and what a damaged video costs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.records import Segment
from lerobot_topreward.report.media import EpisodeMedia, Footage, Strip, read_strips

CAMERA = "observation.images.front"


@pytest.fixture(scope="module")
def recorded(record_dataset: Callable[..., Path]) -> Path:
    tasks = ("stack the cups", "pour")
    return record_dataset(
        lengths=(24, 31, 1, 20), tasks=tasks, cameras=("front",), file_per_episode=True
    )


def footage(root: Path) -> Footage:
    source = open_source(repo_id=None, root=root, revision=None)
    return Footage(source, CAMERA, {0: [Segment(0, 0, 24, "")], 3: [Segment(3, 0, 20, "")]})


def test_strips_show_the_frames_that_were_scored_and_fit_into_the_room(recorded: Path) -> None:
    counted: list[int] = []
    media = read_strips(footage(recorded), sample_fps=2, budget=100_000, done=counted.append)
    strips = {episode: shown.strip for episode, shown in media.items()}
    assert counted == [24, 20]
    assert isinstance(strips[0], Strip)
    assert strips[0].frames.tolist() == [0, 5, 10, 15, 20, 23]
    assert all(shown.thumbnail for shown in media.values())
    tight = read_strips(footage(recorded), sample_fps=2, budget=3_000, done=counted.append)
    kept = [shown.strip.data for shown in tight.values() if shown.strip]
    assert sum(map(len, kept)) < 3_000
    # Room for one: the one that is wanted first.
    one = read_strips(footage(recorded), sample_fps=2, budget=9_000, done=counted.append, first=[3])
    assert one[3].strip
    assert one[0].reason
    none = read_strips(footage(recorded), sample_fps=2, budget=0, done=counted.append)
    reason = "there is no room within `max_mb`"
    assert set(none.values()) == {EpisodeMedia(reason=reason)}


def test_a_damaged_video_costs_its_own_episode_only(recorded: Path, tmp_path: Path) -> None:
    root = shutil.copytree(recorded, tmp_path / "dataset")
    source = open_source(repo_id=None, root=root, revision=None)
    (root / source.meta.name_files(CAMERA)[0]).write_bytes(b"no video")
    media = read_strips(footage(root), sample_fps=2, budget=100_000, done=lambda _: None)
    assert media[0].reason is not None
    assert "cannot be decoded" in media[0].reason
    assert media[3].strip

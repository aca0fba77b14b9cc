import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_topreward.data.dataset import (
    Source,
    fetch_videos,
    open_source,
    segments,
)
from lerobot_topreward.data.frames import FrameTable, find_runs
from lerobot_topreward.data.metadata import Metadata
from lerobot_topreward.data.validate import load_metadata
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Segment

FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def recorded(record_dataset) -> Path:
    return record_dataset(
        lengths=(6, 4, 8),
        tasks=("pick up the cube", ("open the drawer", "close the drawer")),
        cameras=("front",),
        size=(64, 64),
    )


@pytest.fixture
def dataset(recorded, tmp_path) -> Path:
    return shutil.copytree(recorded, tmp_path / "dataset")


def opened(root: Path) -> Source:
    return open_source(repo_id=None, root=root, revision=None)


def edit_info(root: Path, **changes) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_data(root: Path, column: str, values: list) -> None:
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    field = table.schema.field(place)
    pq.write_table(
        table.set_column(place, field, [np.array(values, field.type.to_pandas_dtype())]), path
    )


def test_local_folder_is_opened(recorded):
    source = opened(recorded)
    assert source.meta.total_episodes == 3
    assert (source.root, source.repo_id, source.revision) == (recorded, "local/dataset", None)
    fetch_videos(source, FRONT, [0])
    fetch_videos(source)  # nothing to fetch, and no network to do it with


def test_metadata_are_those_that_lerobot_loads(recorded, tmp_path):
    older = shutil.copytree(recorded, tmp_path / "older")
    content = json.loads((older / "meta/info.json").read_text())
    del content["data_path"], content["video_path"]
    depth = {"dtype": "image", "shape": [4, 4, 1], "names": None, "info": {"is_depth_map": True}}
    content["features"]["depth"] = depth
    (older / "meta/info.json").write_text(json.dumps({**content, "total_tasks": 0, "fps": 10.0}))
    for root in (recorded, older):
        theirs = LeRobotDatasetMetadata("local/x", root=root)
        ours = load_metadata(root, repo_id="local/x", option="root")
        assert ours == Metadata.of(theirs)
        for name in ("camera_keys", "video_keys", "depth_keys"):
            assert getattr(ours, name) == getattr(theirs, name)
        for camera in (None, FRONT):
            path = theirs.get_data_file_path
            if camera is not None:
                path = partial(theirs.get_video_file_path, vid_key=camera)
            assert ours.name_files(camera) == [str(path(i)) for i in range(3)]


def test_only_a_snapshot_of_that_name_is_the_hubs(recorded, tmp_path):
    root = tmp_path / "datasets--me--cubes/snapshots" / ("a" * 40)
    shutil.copytree(recorded, root)
    assert open_source(repo_id="me/cubes", root=root, revision=None).revision == "a" * 40
    assert open_source(repo_id=None, root=root, revision=None).revision is None


def test_a_name_may_go_with_a_folder(recorded):
    assert open_source(repo_id="me/cubes", root=recorded, revision=None).repo_id == "me/cubes"


@pytest.mark.parametrize(
    ("repo_id", "root", "revision", "message"),
    [
        (None, None, None, "Give `repo_id=OWNER/NAME` or `root=FOLDER`"),
        (None, Path("here"), "main", "`revision` .* leave one of them out"),
        (None, Path("nowhere"), None, "`root=.*nowhere` must hold a LeRobot dataset; there is no"),
        ("a/b/c", None, None, "`repo_id` must look like owner/name"),
        ("nobody/nothing", None, None, "`repo_id` .*HF_HUB_OFFLINE"),
        ("nobody/nothing", None, "main", "`repo_id` .*HF_HUB_OFFLINE"),
    ],
)
def test_nothing_to_open(repo_id, root, revision, message):
    with pytest.raises(UserError, match=message):
        open_source(repo_id=repo_id, root=root, revision=revision)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"codebase_version": "v2.1"},
            "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id=local/dataset --root=",
        ),
        ({"codebase_version": "v4.0"}, r"it is v4\.0\. Upgrade lerobot"),
        ({"codebase_version": "new"}, "it is new, which"),
        ({"total_episodes": 0}, "it is empty"),
        ({"total_frames": 0}, "it is empty"),
        ({"total_episodes": 4}, "promises 4 episodes and meta/episodes lists 3"),
        ({"fps": 0}, "fps must be a number of frames per second"),
    ],
)
def test_unusable_info(dataset, changes, message):
    edit_info(dataset, **changes)
    with pytest.raises(UserError, match=message):
        opened(dataset)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_garbled_info(dataset, content):
    (dataset / "meta/info.json").write_text(content)
    with pytest.raises(UserError, match=r"JSON"):
        opened(dataset)


@pytest.mark.parametrize("missing", ["meta/tasks.parquet", "meta/episodes"])
def test_missing_metadata_is_not_looked_for_on_the_hub(dataset, missing):
    path = dataset / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=f"is incomplete: .*{missing} is missing"):
        opened(dataset)


def test_damaged_metadata(dataset):
    (dataset / "meta/tasks.parquet").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="meta cannot be read"):
        opened(dataset)


def test_frames_are_read_in_order(recorded):
    table = opened(recorded).frames
    assert table.index.tolist() == list(range(18))
    assert table.episode_index.tolist() == [0] * 6 + [1] * 4 + [2] * 8
    assert table.frame_index.tolist() == [*range(6), *range(4), *range(8)]
    np.testing.assert_allclose(table.timestamp, table.frame_index / 10, atol=1e-6)
    assert table.rows(1) == slice(6, 10)
    assert table.rows(3) == slice(18, 18)


def test_frames_are_incomplete(dataset):
    edit_info(dataset, total_frames=19)
    with pytest.raises(UserError, match=r"must hold the 19 frames .* it holds 18"):
        _ = opened(dataset).frames
    shutil.rmtree(dataset / "data")
    with pytest.raises(UserError, match=r"is incomplete: .*file-000\.parquet is missing"):
        _ = opened(dataset).frames


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("index", [*range(1, 19)]),
        ("episode_index", [2] * 8 + [1] * 4 + [0] * 6),
        ("frame_index", [*range(18)]),
    ],
)
def test_frames_are_out_of_order(dataset, column, values):
    edit_data(dataset, column, values)
    with pytest.raises(UserError, match="must number its frames"):
        _ = opened(dataset).frames


def test_damaged_data(dataset):
    (path,) = dataset.glob("data/*/*.parquet")
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"file-000.parquet cannot be read"):
        _ = opened(dataset).frames


def test_a_segment_per_run_of_a_task(recorded):
    source = opened(recorded)
    assert segments(source, [0, 1], instruction=None) == {
        0: [Segment(0, 0, 6, "pick up the cube")],
        1: [Segment(1, 0, 2, "open the drawer"), Segment(1, 2, 2, "close the drawer")],
    }


def test_an_instruction_replaces_all_tasks(recorded):
    source = opened(recorded)
    found = segments(source, [1], instruction="tidy up")
    assert found == {1: [Segment(1, 0, 4, "tidy up")]}
    with pytest.raises(UserError, match=r"`instruction` .* blank"):
        segments(source, [1], instruction=" ")


def test_an_episode_without_a_task(dataset):
    tasks = pd.read_parquet(dataset / "meta/tasks.parquet")
    tasks.rename(index={"close the drawer": " "}).to_parquet(dataset / "meta/tasks.parquet")
    source = opened(dataset)
    with pytest.raises(UserError, match=r"none for episode 1\. .* `instruction=TEXT`"):
        segments(source, [0, 1, 2], instruction=None)
    assert list(segments(source, [0, 2], instruction=None)) == [0, 2]
    edit_data(dataset, "task_index", [7] * 18)
    with pytest.raises(UserError, match="none for episode 0, 1, 2"):
        segments(opened(dataset), [0, 1, 2], instruction=None)


def test_an_episode_without_frames_fails_alone(recorded):
    source = opened(recorded)
    whole = source.frames
    keep = whole.episode_index != 1
    left = FrameTable(*(getattr(whole, name)[keep] for name in FrameTable.__slots__))
    vars(source)["frames"] = left
    found = segments(source, [0, 1], instruction=None)
    assert found[1] == []
    assert found[0] == [Segment(0, 0, 6, "pick up the cube")]


def test_find_runs():
    assert find_runs(np.array([], np.int64)) == []
    assert find_runs(np.array([0])) == [(0, 1, 0)]
    assert find_runs(np.array([-1, -1])) == [(0, 2, -1)]
    assert find_runs(np.array([3, 3, 0, 3])) == [(0, 2, 3), (2, 1, 0), (3, 1, 3)]


@pytest.mark.slow
def test_offline_runs_use_what_was_recorded_or_cached(recorded, tmp_path):
    """A name is looked up where LeRobot records, then in its cache, at the version tag."""
    commit = "a" * 40
    cached = tmp_path / "hub/datasets--me--cached"
    shutil.copytree(recorded, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/v3.0").write_text(commit)
    shutil.copytree(recorded, tmp_path / "me/recorded")
    program = """if True:
        from lerobot_topreward.data.dataset import open_source
        for name in ("cached", "recorded"):
            source = open_source(repo_id=f"me/{name}", root=None, revision=None)
            print(source.root, source.revision, len(source.frames.index))
    """
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"HF_LEROBOT_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"{cached / 'snapshots' / commit} {commit} 18",
        f"{tmp_path / 'me/recorded'} None 18",
    ]

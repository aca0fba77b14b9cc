import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_tools import merge_datasets
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.video_prints import video_prints

FRONT, WRIST = "observation.images.front", "observation.images.wrist"


@pytest.fixture(scope="module")
def recorded(record_dataset) -> Path:
    return record_dataset(
        lengths=(6, 4), tasks=("pick up the cube", ("open it", "close it")), size=(64, 64)
    )


@pytest.fixture
def dataset(recorded, tmp_path) -> Path:
    return shutil.copytree(recorded, tmp_path / "dataset")


def episodes_of(root: Path) -> list[str]:
    source = open_source(repo_id=None, root=root, revision=None)
    return list(source.fingerprints.episodes)


def videos_of(root: Path, camera: str = FRONT) -> dict[int, str]:
    source = open_source(repo_id=None, root=root, revision=None)
    everyone = range(source.meta.total_episodes)
    return video_prints(source, camera=camera, episodes=everyone)


def whole(root: Path) -> str:
    source = open_source(repo_id=None, root=root, revision=None)
    return source.fingerprints.dataset


def edit(root: Path, files: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    for path in root.glob(files):
        change(pd.read_parquet(path)).to_parquet(path)


def renumber_files(root: Path) -> None:
    for kind in ("data", f"videos/{FRONT}", f"videos/{WRIST}"):
        (old,) = (root / kind).glob("chunk-000/file-000.*")
        (root / kind / "chunk-003").mkdir()
        old.rename(root / kind / "chunk-003" / old.name)
        name = f"{kind}/chunk_index"
        edit(root, "meta/episodes/*/*.parquet", lambda t, name=name: t.assign(**{name: 3}))


def add_our_columns(root: Path) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["topreward.progress"] = {"dtype": "float32", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    edit(
        root,
        "data/*/*.parquet",
        lambda t: t.assign(**{"topreward.progress": np.zeros(len(t), np.float32)}),
    )


def renumber_tasks(root: Path) -> None:
    edit(root, "meta/tasks.parquet", lambda t: t.assign(task_index=2 - t.task_index))
    edit(root, "data/*/*.parquet", lambda t: t.assign(task_index=2 - t.task_index))


@pytest.mark.parametrize("change", [renumber_files, add_our_columns, renumber_tasks])
def test_what_is_not_a_new_recording_changes_nothing(recorded, dataset, change):
    change(dataset)
    assert episodes_of(dataset) == episodes_of(recorded)
    assert videos_of(dataset) == videos_of(recorded)
    assert whole(dataset) == whole(recorded)


def nudge(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        values = [row.copy() for row in table[column]]
        values[-1][0] += 1e-6
        return table.assign(**{column: values})

    return change


@pytest.mark.parametrize(
    ("files", "change"),
    [
        ("data/*/*.parquet", nudge("action")),
        ("data/*/*.parquet", nudge("observation.state")),
        ("meta/tasks.parquet", lambda t: t.rename(index={"close it": "shut it"})),
        ("data/*/*.parquet", lambda t: t.assign(task_index=[*t.task_index[:-1], 0])),
    ],
)
def test_a_change_is_noticed_in_its_episode_alone(recorded, dataset, files, change):
    edit(dataset, files, change)
    before, after = episodes_of(recorded), episodes_of(dataset)
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert whole(dataset) != whole(recorded)


def test_the_clock_is_hashed(recorded, dataset):
    path = dataset / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": 5}))
    assert not set(episodes_of(recorded)) & set(episodes_of(dataset))


def test_only_a_corrected_task_leaves_the_recording_what_it_was(recorded, dataset):
    edit(dataset, "meta/tasks.parquet", lambda t: t.rename(index={"close it": "shut it"}))
    before, after = (
        source.fingerprints.recordings
        for source in (
            open_source(repo_id=None, root=root, revision=None) for root in (recorded, dataset)
        )
    )
    assert before == after


def test_every_camera_and_place_in_a_video_has_its_own_print(recorded, dataset):
    front, wrist = videos_of(recorded), videos_of(recorded, WRIST)
    assert len({*front.values(), *wrist.values()}) == 4
    start = f"videos/{FRONT}/from_timestamp"
    edit(dataset, "meta/episodes/*/*.parquet", lambda t: t.assign(**{start: t[start] + [0, 0.1]}))
    assert videos_of(dataset, WRIST) == wrist
    assert videos_of(dataset)[0] == front[0]
    assert videos_of(dataset)[1] != front[1]


def test_another_video_has_another_print_and_a_missing_one_none(recorded, dataset, record_dataset):
    other = record_dataset(lengths=(6, 4), size=(64, 64), seed=9)
    shutil.copytree(other / "videos", dataset / "videos", dirs_exist_ok=True)
    assert not set(videos_of(dataset).values()) & set(videos_of(recorded).values())
    for path in dataset.glob(f"videos/{FRONT}/*/*.mp4"):
        path.write_bytes(path.read_bytes()[:100])
    assert videos_of(dataset) == {}
    for path in dataset.glob(f"videos/{WRIST}/*/*.mp4"):
        path.unlink()
    assert videos_of(dataset, WRIST) == {}


def test_appending_leaves_the_prints_of_what_was_there(recorded, record_dataset, tmp_path):
    # Not recorded once more and longer: x264 does not always encode the same pictures alike.
    more = record_dataset(lengths=(5,), tasks=("pick up the cube",), size=(64, 64), seed=1)
    parts = [LeRobotDataset("local/recorded", root=root) for root in (recorded, more)]
    merge_datasets(parts, output_repo_id="local/longer", output_dir=tmp_path / "longer")
    assert len(list((tmp_path / "longer" / "videos" / FRONT).rglob("*.mp4"))) == 1
    longer = videos_of(tmp_path / "longer")
    assert len(longer) == 3
    assert {**longer, **videos_of(recorded)} == longer


def test_columns_of_any_nesting_and_images_in_data(record_dataset, tmp_path):
    root = shutil.copytree(
        record_dataset(lengths=(3, 2), cameras=("front",), size=(64, 64), video=False),
        tmp_path / "dataset",
    )
    before = episodes_of(root)
    assert len(set(before)) == 2
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    nested = [[[1.0, 2.0], [3.0, 4.0]]] * 5
    pq.write_table(table.append_column("observation.grid", pa.array(nested)), path)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.grid"] = {"dtype": "float64", "shape": [2, 2], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    assert not set(before) & set(episodes_of(root))


def test_a_replaced_picture_has_another_print_and_a_damaged_one_none(record_dataset, tmp_path):
    root = shutil.copytree(
        record_dataset(lengths=(3, 2, 4), cameras=("front",), size=(64, 64), video=False),
        tmp_path / "dataset",
    )
    before = videos_of(root)
    assert len(set(before.values())) == 3
    (path,) = root.glob("data/*/*.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index(FRONT)
    cells = table[FRONT].to_pylist()
    cells[4], cells[5] = cells[0], None  # the last of episode 1, the first of episode 2
    field = table.schema.field(place)
    pq.write_table(table.set_column(place, field, pa.array(cells, field.type)), path)
    after = videos_of(root)
    assert after.keys() == {0, 1}
    assert after[0] == before[0]
    assert after[1] != before[1]

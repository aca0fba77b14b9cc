import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot.datasets.dataset_tools import (
    delete_episodes,
    merge_datasets,
    modify_tasks,
    recompute_stats,
    split_dataset,
)
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_topreward.dataset import FEATURES, check_output, write_columns
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.sidecar import SIDECAR_NAME, read_sidecar
from lerobot_topreward.transaction import FileOps, finish_interrupted

RecordDataset = Callable[..., Path]
FINGERPRINT = "a" * 64
UNLABELLED = 1  # episode


def write(
    source: Path,
    rewards: FrameRewards,
    output: Path,
    *,
    fingerprint: str = FINGERPRINT,
    ops: FileOps | None = None,
) -> None:
    write_columns(source, rewards, output, fingerprint=fingerprint, provenance={"a": 1}, ops=ops)


def data_table(root: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(root.glob("data/*/*.parquet")))


def rewards_for(root: Path, *, seed: int = 0) -> FrameRewards:
    table = data_table(root)
    episode = table["episode_index"].to_numpy()
    labelled = episode != UNLABELLED
    rng = np.random.default_rng(seed)

    def values(low: float, high: float) -> np.ndarray:
        return np.where(labelled, rng.uniform(low, high, len(episode)), 0).astype(np.float32)

    return FrameRewards(
        index=table["index"].to_numpy(),
        episode_index=episode,
        frame_index=table["frame_index"].to_numpy(),
        labelled=labelled,
        log_prob_true=values(-20, 0),
        log_prob_false=values(-20, 0),
        progress=values(0, 1),
        advantage=values(-1, 1),
    )


def columns_of(rewards: FrameRewards) -> dict[str, np.ndarray]:
    return {
        "topreward.log_prob": rewards.log_prob_true,
        "topreward.progress": rewards.progress,
        "topreward.advantage": rewards.advantage,
        "topreward.labelled": rewards.labelled,
    }


def hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def load(root: Path) -> LeRobotDataset:
    return LeRobotDataset("local/labelled", root=root, video_backend="pyav")


def sample(dataset: LeRobotDataset, index: int) -> dict[str, Any]:
    item: Any = dataset[index]
    return item


def assert_columns(root: Path, rewards: FrameRewards) -> None:
    table = data_table(root)
    for name, values in columns_of(rewards).items():
        assert table[name].type == (pa.bool_() if values.dtype == bool else pa.float32())
        np.testing.assert_array_equal(table[name].to_numpy(), values)


def add_extras(root: Path) -> None:
    (root / "README.md").write_text("# Mine\n")
    (root / "truth.parquet").write_bytes(b"truth")
    for hidden in (".cache/huggingface/lock", ".git/HEAD"):
        (root / hidden).parent.mkdir(parents=True)
        (root / hidden).write_text("hidden")


@pytest.fixture(scope="module")
def record_states(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Record datasets without cameras, with extra float columns, in files of about `dim` x 4 kB."""

    def record(
        *, lengths: Sequence[int], dim: int = 2, extra: dict[str, np.ndarray] | None = None
    ) -> Path:
        root = tmp_path_factory.mktemp("states") / "dataset"
        extra = extra or {}
        features = {
            "observation.state": {"dtype": "float32", "shape": (dim,), "names": None},
            "action": {"dtype": "float32", "shape": (2,), "names": None},
            **{
                name: {"dtype": str(values.dtype), "shape": (1,), "names": None}
                for name, values in extra.items()
            },
        }
        dataset = LeRobotDataset.create(
            "local/states",
            fps=10,
            features=features,
            root=root,
            use_videos=False,
            data_files_size_in_mb=1,
        )
        dataset.meta.update_chunk_settings(chunks_size=2)
        rng = np.random.default_rng(0)
        index = 0
        for length in lengths:
            for _ in range(length):
                frame = {name: values[index : index + 1] for name, values in extra.items()}
                frame["observation.state"] = rng.normal(size=dim).astype(np.float32)
                frame["action"] = rng.normal(size=2).astype(np.float32)
                dataset.add_frame({**frame, "task": "push"})
                index += 1
            dataset.save_episode()
        dataset.finalize()
        return root

    return record


@pytest.fixture(scope="module")
def sources(record_dataset: RecordDataset, record_states: Callable[..., Path]) -> dict[str, Path]:
    """Three kinds of datasets, none of which any test may change."""
    made = {
        "videos": record_dataset(lengths=(6, 4, 7), size=(48, 64)),
        "images": record_dataset(lengths=(5, 3), size=(24, 32), cameras=("front",), video=False),
        "files": record_states(lengths=(80, 81, 82, 83, 40), dim=900),
    }
    for root in made.values():
        add_extras(root)
    return made


@pytest.fixture(scope="module", params=["videos", "images", "files"])
def labelled(
    request: pytest.FixtureRequest,
    sources: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, Path, FrameRewards]]:
    """A source, its labelled copy and its rewards; the source must come out as it went in."""
    source = sources[request.param]
    before = hashes(source)
    output = tmp_path_factory.mktemp("labelled") / "output"
    rewards = rewards_for(source)
    write(source, rewards, output)
    yield source, output, rewards
    assert hashes(source) == before


@pytest.fixture(scope="module")
def recorded_small(record_states: Callable[..., Path]) -> Path:
    root = record_states(lengths=(4, 3, 5))
    add_extras(root)
    return root


@pytest.fixture
def small(recorded_small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three short episodes that a test may change."""
    return shutil.copytree(recorded_small, tmp_path_factory.mktemp("small") / "dataset")


def test_lerobot_loads_the_output(labelled: tuple[Path, Path, FrameRewards]) -> None:
    source, output, rewards = labelled
    before, after = load(source), load(output)
    assert len(after) == len(before) == len(rewards.index)
    assert {name: after.meta.features[name] for name in FEATURES} == {
        name: {**feature, "shape": (1,)} for name, feature in FEATURES.items()
    }
    for i in (0, len(after) // 2, len(after) - 1):
        item, original = sample(after, i), sample(before, i)
        for name, values in columns_of(rewards).items():
            assert item[name].item() == values[i]
        for name, value in original.items():
            same = item[name] == value
            assert same if isinstance(value, str) else same.all()


def test_the_data_is_otherwise_the_same(labelled: tuple[Path, Path, FrameRewards]) -> None:
    source, output, rewards = labelled
    assert_columns(output, rewards)
    for before in sorted(source.glob("data/*/*.parquet")):
        after = output / before.relative_to(source)
        a, b = pq.ParquetFile(before), pq.ParquetFile(after)
        assert a.num_row_groups == b.num_row_groups
        for group in range(a.num_row_groups):
            assert b.read_row_group(group).drop_columns(list(FEATURES)) == a.read_row_group(group)
        named = json.loads(b.schema_arrow.metadata[b"huggingface"])["info"]["features"]
        assert list(named) == b.schema_arrow.names


def test_plain_datasets_loads_the_output(
    labelled: tuple[Path, Path, FrameRewards], tmp_path: Path
) -> None:
    _, output, rewards = labelled
    table = datasets.load_dataset(
        "parquet", data_dir=str(output / "data"), split="train", cache_dir=str(tmp_path)
    )
    assert isinstance(table, datasets.Dataset)
    assert table.features["topreward.labelled"] == datasets.Value("bool")
    assert table.features["topreward.progress"] == datasets.Value("float32")
    np.testing.assert_array_equal(table["topreward.progress"], rewards.progress)


def test_only_what_must_change_is_written_anew(labelled: tuple[Path, Path, FrameRewards]) -> None:
    source, output, _ = labelled
    before, after = hashes(source), hashes(output)
    visible = {name for name in before if not name.startswith(".")}
    assert set(after) == visible | {SIDECAR_NAME}
    changed = {name for name in visible if before[name] != after[name]}
    rewritten = {name for name in visible if name.startswith(("data/", "meta/episodes/"))}
    assert changed == rewritten | {"meta/stats.json", "meta/info.json"}
    for name in visible:
        linked = (source / name).samefile(output / name)
        assert linked == name.startswith(("videos/", "images/")), name
    assert list((output / "topreward").iterdir()) == []


def test_the_source_has_several_files_or_this_proves_little(sources: dict[str, Path]) -> None:
    files = [path.as_posix() for path in sources["files"].glob("data/*/*.parquet")]
    assert any("chunk-000/file-001" in name for name in files)
    assert any("chunk-001/file-000" in name for name in files)
    assert pq.ParquetFile(min(files)).num_row_groups == 2
    assert list(sources["videos"].glob("videos/*/*/*.mp4"))


def test_statistics_are_those_that_lerobot_records(record_states: Callable[..., Path]) -> None:
    lengths = (40, 1, 25)  # an episode of one frame takes another path through LeRobot
    source = record_states(lengths=lengths)
    rewards = rewards_for(source)
    oracle = record_states(lengths=lengths, extra=columns_of(rewards))
    write(source, rewards, source)
    ours, theirs = (
        pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet")
        for root in (source, oracle)
    )
    assert set(ours.column_names) == set(theirs.column_names)
    for name in ours.column_names:
        assert ours[name].type == theirs[name].type, name
        assert ours[name].to_pylist() == theirs[name].to_pylist(), name
    stats, expected = (
        json.loads((root / "meta/stats.json").read_text()) for root in (source, oracle)
    )
    assert set(stats) == set(expected)
    for name in FEATURES:
        for key, values in expected[name].items():
            np.testing.assert_allclose(stats[name][key], values, rtol=1e-6, atol=1e-9)
    assert load(source).meta.features == load(oracle).meta.features


def test_deleting_episodes_keeps_the_columns(
    labelled: tuple[Path, Path, FrameRewards], tmp_path: Path
) -> None:
    _, output, rewards = labelled
    dataset = delete_episodes(load(output), [0], output_dir=tmp_path / "rest", repo_id="local/rest")
    keep = rewards.episode_index != 0
    for name, values in columns_of(rewards).items():
        np.testing.assert_array_equal(data_table(dataset.root)[name].to_numpy(), values[keep])
        assert dataset.meta.stats is not None
        np.testing.assert_allclose(dataset.meta.stats[name]["mean"], values[keep].mean(), rtol=1e-4)
        np.testing.assert_allclose(dataset.meta.stats[name]["max"], values[keep].max())


def test_splitting_and_recomputing_keep_the_columns(
    record_states: Callable[..., Path], tmp_path: Path
) -> None:
    source = record_states(lengths=(6, 4, 5, 7))
    rewards = rewards_for(source)
    write(source, rewards, tmp_path / "output")
    parts = split_dataset(
        load(tmp_path / "output"), {"a": [0, 3], "b": [1, 2]}, output_dir=tmp_path / "parts"
    )
    for part, episodes in (("a", [0, 3]), ("b", [1, 2])):
        rows = np.isin(rewards.episode_index, episodes)
        for name, values in columns_of(rewards).items():
            stored = data_table(parts[part].root)[name].to_numpy()
            np.testing.assert_array_equal(stored, values[rows])
    before = json.loads((tmp_path / "output/meta/stats.json").read_text())
    recompute_stats(load(tmp_path / "output"))
    after = json.loads((tmp_path / "output/meta/stats.json").read_text())
    for name in FEATURES:
        for key, values in after[name].items():
            np.testing.assert_allclose(before[name][key], values, rtol=1e-6, atol=1e-9)


def test_merging_keeps_the_columns(small: Path, tmp_path: Path) -> None:
    rewards = rewards_for(small)
    for name in ("a", "b"):
        write(small, rewards, tmp_path / name)
    merged = merge_datasets(
        [load(tmp_path / "a"), load(tmp_path / "b")],
        output_repo_id="local/merged",
        output_dir=tmp_path / "merged",
    )
    assert merged.meta.stats is not None
    for name, values in columns_of(rewards).items():
        stored = data_table(tmp_path / "merged")[name].to_numpy()
        np.testing.assert_array_equal(stored, np.tile(values, 2))
        np.testing.assert_allclose(merged.meta.stats[name]["mean"], values.mean(), rtol=1e-4)


def test_editing_the_output_in_place_does_not_reach_the_source(small: Path, tmp_path: Path) -> None:
    before, rewards = hashes(small), rewards_for(small)
    write(small, rewards, tmp_path / "output")
    modify_tasks(load(tmp_path / "output"), new_task="pull")  # rewrites meta/tasks.parquet
    for name in ("README.md", "truth.parquet"):
        (tmp_path / "output" / name).write_text("edited")
    assert sample(load(tmp_path / "output"), 0)["task"] == "pull"
    assert_columns(tmp_path / "output", rewards)
    assert hashes(small) == before
    # What an edit through pandas leaves can be labelled again.
    write(tmp_path / "output", rewards_for(small, seed=1), tmp_path / "again")
    assert_columns(tmp_path / "again", rewards_for(small, seed=1))
    assert len(load(tmp_path / "again")) == len(rewards.index)


def test_the_sidecar_agrees_with_the_columns(labelled: tuple[Path, Path, FrameRewards]) -> None:
    _, output, rewards = labelled
    sidecar = read_sidecar(output / SIDECAR_NAME, fingerprint=FINGERPRINT)
    np.testing.assert_array_equal(sidecar.index, rewards.index[rewards.labelled])
    np.testing.assert_array_equal(sidecar.progress, rewards.progress[rewards.labelled])
    assert sidecar.provenance == {"a": 1}


def test_labelling_again_replaces_the_columns(sources: dict[str, Path], tmp_path: Path) -> None:
    source, output = sources["videos"], tmp_path / "output"
    write(source, rewards_for(source), output)
    first = hashes(output)
    (output / "README.md").write_text("# Edited after labelling\n")
    (output / "topreward/key").mkdir()
    (output / "topreward/key/episode_000000.parquet").write_text("scores")
    again = rewards_for(source, seed=1)
    write(source, again, output)
    assert_columns(output, again)
    second = hashes(output)
    assert (output / "README.md").read_text() == "# Edited after labelling\n"
    assert (output / "topreward/key/episode_000000.parquet").read_text() == "scores"
    changed = {name for name in first if first[name] != second[name]}
    rewritten = {name for name in first if name.startswith(("data/", "meta/episodes/"))}
    assert changed == rewritten | {"meta/stats.json", "README.md", SIDECAR_NAME}
    # An earlier output is a source like any other: its columns are replaced, its scores stay.
    write(output, rewards_for(source), tmp_path / "third")
    third = hashes(tmp_path / "third")
    assert {name for name in third if third[name] != first[name]} == {"README.md"}
    load(tmp_path / "third")


def test_in_place_changes_no_linked_copy(sources: dict[str, Path], tmp_path: Path) -> None:
    source, copy, child = sources["videos"], tmp_path / "copy", tmp_path / "child"
    write(source, rewards_for(source), copy)
    write(copy, rewards_for(source), child)
    kept = hashes(child)
    again = rewards_for(source, seed=2)
    write(copy, again, copy)
    assert_columns(copy, again)
    assert sample(load(copy), 3)["topreward.progress"].item() == again.progress[3]
    assert hashes(child) == kept


def test_a_rechunked_source_leaves_no_stale_data(
    sources: dict[str, Path], record_states: Callable[..., Path], tmp_path: Path
) -> None:
    write(sources["files"], rewards_for(sources["files"]), tmp_path / "output")
    source = record_states(lengths=(3, 2))
    rewards = rewards_for(source)
    write(source, rewards, tmp_path / "output")
    assert_columns(tmp_path / "output", rewards)
    assert len(load(tmp_path / "output")) == 5


class Stop(BaseException):
    """Stands in for kill -9 within a process: nobody catches it."""


def stop_after(steps: int) -> tuple[FileOps, list[str]]:
    moved: list[str] = []

    def move(source: Path, target: Path) -> None:
        if len(moved) == steps:
            raise Stop
        moved.append(target.name)
        os.replace(source, target)

    return FileOps(replace=move), moved


# The journal, README.md, tasks.parquet, truth.parquet, data, episodes, stats, the sidecar, info.
STEPS = 9


@pytest.mark.parametrize("steps", range(STEPS))
def test_an_interrupted_fresh_output_is_no_dataset_until_finished(
    small: Path, tmp_path: Path, steps: int
) -> None:
    output, rewards = tmp_path / "output", rewards_for(small)
    ops, _ = stop_after(steps)
    with pytest.raises(Stop):
        write(small, rewards, output, ops=ops)
    assert not (output / "meta/info.json").exists()
    assert finish_interrupted(output) is (steps > 0)
    if steps:
        assert_columns(output, rewards)
        assert len(load(output)) == len(rewards.index)
    assert list((output / "topreward").iterdir()) == []
    write(small, rewards, output)
    assert_columns(output, rewards)


@pytest.mark.parametrize("steps", range(STEPS - 3))
def test_interrupted_in_place_is_old_or_becomes_new(small: Path, steps: int) -> None:
    write(small, rewards_for(small), small)
    before, again = hashes(small), rewards_for(small, seed=1)
    ops, moved = stop_after(steps)
    with pytest.raises(Stop):
        write(small, again, small, ops=ops)
    assert len(moved) == steps
    if steps == 0:
        assert hashes(small) == before
    assert finish_interrupted(small) is (steps > 0)
    assert_columns(small, again if steps else rewards_for(small))
    load(small)
    write(small, again, small)
    done = hashes(small)
    assert done.keys() == before.keys()
    assert done["truth.parquet"] == before["truth.parquet"]


def test_the_list_of_steps_is_complete(small: Path, tmp_path: Path) -> None:
    ops, moved = stop_after(100)
    write(small, rewards_for(small), tmp_path / "output", ops=ops)
    assert len(moved) == STEPS
    assert moved[0] == "commit.json"
    assert moved[-1] == "info.json"


def test_a_full_disk_changes_nothing(small: Path, tmp_path: Path) -> None:
    def copy(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "output"
    for ops in (FileOps(copy=copy), FileOps(free_bytes=lambda folder: 10)):
        with pytest.raises(UserError, match=r"not enough disk space in .*output: about 0.\d MB"):
            write(small, rewards_for(small), output, ops=ops)
        assert [path.name for path in output.rglob("*")] == ["topreward"]


@pytest.fixture
def other_device(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm as a second device")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_another_device_gets_copies_and_is_asked_for_their_room(
    sources: dict[str, Path], other_device: Path, tmp_path: Path
) -> None:
    source = sources["videos"]
    videos = sum(path.stat().st_size for path in source.rglob("*.mp4"))
    needed = []
    for output in (other_device / "output", tmp_path / "output"):
        with pytest.raises(UserError, match="not enough disk space") as caught:
            write(source, rewards_for(source), output, ops=FileOps(free_bytes=lambda folder: 0))
        needed.append(float(str(caught.value).partition("about ")[2].split()[0]))
    assert needed[0] - needed[1] == pytest.approx(videos / 1e6, abs=0.11)  # rounded to 0.1 MB
    output = other_device / "output"
    write(source, rewards_for(source), output)
    assert len(load(output)) == len(load(source))
    first = {path: path.stat().st_ino for path in output.rglob("*.mp4")}
    write(source, rewards_for(source, seed=1), output)
    assert first == {path: path.stat().st_ino for path in output.rglob("*.mp4")}


def test_a_foreign_folder_is_left_alone(small: Path, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"holiday-{i}.jpg").write_text("photo")
    before = hashes(tmp_path)
    message = r"is not empty: it holds holiday-0.jpg, .*, \.\.\., which .* another output folder"
    with pytest.raises(UserError, match=message):
        write(small, rewards_for(small), tmp_path)
    assert hashes(tmp_path) == before


def test_another_datasets_output_is_left_alone(small: Path, tmp_path: Path) -> None:
    write(small, rewards_for(small), tmp_path / "output")
    before = hashes(tmp_path / "output")
    with pytest.raises(UserError, match=r"another dataset's labels.*a{12}, now b{12}"):
        write(small, rewards_for(small), tmp_path / "output", fingerprint="b" * 64)
    assert hashes(tmp_path / "output") == before


def test_an_output_that_holds_only_scores_is_ours(small: Path, tmp_path: Path) -> None:
    (tmp_path / "topreward/key").mkdir(parents=True)
    check_output(small, tmp_path, fingerprint=FINGERPRINT)
    write(small, rewards_for(small), tmp_path)
    assert (tmp_path / "topreward/key").is_dir()


@pytest.mark.parametrize("place", ["within/it", "around"])
def test_output_and_source_may_not_nest(small: Path, place: str) -> None:
    output = small / place if place == "within/it" else small.parent
    with pytest.raises(UserError, match="must not lie within the dataset"):
        write(small, rewards_for(small), output)


def test_an_output_is_made_with_its_parents(small: Path, tmp_path: Path) -> None:
    write(small, rewards_for(small), tmp_path / "a" / "b")
    assert len(load(tmp_path / "a" / "b")) == len(load(small))
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(UserError, match=r"cannot be written: .* is not a folder"):
            write(small, rewards_for(small), output)


def test_a_read_only_parent_is_refused(small: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(UserError, match=r"output cannot be written: .*locked is not writable"):
        write(small, rewards_for(small), locked / "output")


def test_the_hubs_cache_is_not_labelled_in_place(small: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    (small / "meta/info.json").rename(blob)
    (small / "meta/info.json").symlink_to(blob)
    with pytest.raises(UserError, match="belongs to the Hub's cache"):
        write(small, rewards_for(small), small)
    write(small, rewards_for(small), tmp_path / "output")
    assert "topreward" not in blob.read_text()


def test_rewards_of_other_frames_are_refused(small: Path, tmp_path: Path) -> None:
    rewards = rewards_for(small)
    short = FrameRewards(*(getattr(rewards, name)[:-1] for name in FrameRewards.__slots__))
    moved = replace(rewards, episode_index=rewards.episode_index + 1)
    spoiled = replace(rewards, progress=np.full_like(rewards.progress, np.nan))
    for wrong, message in (
        (short, "11 rewards for a dataset of 12 frames"),
        (moved, "not those of the dataset's frames: episode_index differs"),
        (spoiled, "progress must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            write(small, wrong, tmp_path / "output")
    assert not (tmp_path / "output/meta").exists()


@pytest.mark.slow
def test_stock_act_trains_on_the_output(sources: dict[str, Path], tmp_path: Path) -> None:
    source, output = sources["videos"], tmp_path / "output"
    write(source, rewards_for(source), output)
    policy = (
        "type=act device=cpu push_to_hub=false pretrained_backbone_weights=null dim_model=64 "
        "n_heads=2 dim_feedforward=64 n_encoder_layers=1 chunk_size=4 n_action_steps=4 "
        "use_vae=false"
    )
    command = [
        *(sys.executable, "-m", "lerobot.scripts.lerobot_train"),
        *("--dataset.repo_id=local/labelled", f"--dataset.root={output}"),
        "--dataset.video_backend=pyav",
        *(f"--policy.{option}" for option in policy.split()),
        *("--batch_size=2", "--steps=3", "--num_workers=0", "--wandb.enable=false"),
        f"--output_dir={tmp_path / 'run'}",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "run/checkpoints").glob("*/pretrained_model/model.safetensors"))

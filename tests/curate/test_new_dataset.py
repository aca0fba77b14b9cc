import filecmp
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from cups import GOOD, contents, frame, labelled, write_labels
from lerobot.datasets.dataset_tools import delete_episodes, remove_feature
from lerobot.datasets.lerobot_dataset import LeRobotDataset

import lerobot_topreward.curate.write
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, read_sidecar
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import read_labels

pytestmark = pytest.mark.slow

RecordDataset = Callable[..., Path]
Run = Callable[..., str]


def test_the_new_dataset_is_one_for_lerobot_and_for_training(
    run: Run, dataset: Path, recorded: Path, tmp_path: Path
):
    before, output = contents(dataset), tmp_path / "good"
    assert "3 episodes are now a dataset" in run("--root", dataset, "--output", output)
    assert contents(dataset) == before
    assert [path.name for path in tmp_path.iterdir()] == ["good"]

    made = LeRobotDataset("local/good", root=output)
    whole = LeRobotDataset("local/cups", root=dataset)
    assert (made.num_episodes, made.num_frames) == (3, 24 + 22 + 26)
    first = 0
    for old, length in zip(GOOD, (24, 22, 26), strict=True):
        assert whole.meta.episodes is not None
        start = whole.meta.episodes[old]["dataset_from_index"]
        for place in (0, length - 1):
            new, there = frame(made, first + place), frame(whole, start + place)
            image = "observation.images.front"
            assert float((new[image] - there[image]).abs().mean()) < 0.03  # encoded once more
            for name in ("observation.state", "action", "topreward.log_prob", "timestamp"):
                assert np.isfinite(np.asarray(new[name])).all()
                np.testing.assert_array_equal(new[name], there[name])
            assert new["task"] == there["task"]
        first += length
    assert made.meta.stats is not None
    assert {"topreward.progress", "topreward.labelled", "action"} <= set(made.meta.stats)
    assert made.meta.episodes is not None
    assert list(made.meta.episodes["success"]) == [True, True, True]

    source = open_source(repo_id=None, root=output, revision=None)
    fingerprint = source.fingerprints.dataset
    assert len(read_sidecar(output / SIDECAR_NAME, fingerprint=fingerprint)[0].index) == 72
    config = WeightingConfig()
    weighed = read_labels(source, episodes=None, config=config)
    assert weighed.labelled.all()
    scores = {scored.segment.episode_index: scored for scored in labelled(dataset).scores}
    for new, scored in enumerate(labelled(output).scores):
        assert scored.segment.episode_index == new
        np.testing.assert_array_equal(scored.log_prob_true, scores[GOOD[new]].log_prob_true)

    record = json.loads((output / "curation.json").read_text())
    assert record["kept"] == {"0": 0, "3": 1, "4": 2}
    assert set(record["dropped"]) == {"1", "2"}
    assert record["source"]["fingerprint"] == labelled(dataset).source.fingerprints.dataset
    assert record["fingerprint"] == fingerprint
    assert record["rules"]["limits"] == {"min_final_progress": 0.8, "max_idle": "default"}


def test_it_is_what_lerobot_makes_by_itself(run: Run, dataset: Path, tmp_path: Path):
    run("--root", dataset, "--output", tmp_path / "good")
    delete_episodes(LeRobotDataset("local/cups", root=dataset), [1, 2], tmp_path / "theirs", "a/b")
    theirs = [path.relative_to(tmp_path / "theirs") for path in (tmp_path / "theirs").rglob("*.*")]
    assert len([path for path in theirs if path.suffix == ".parquet"]) == 3
    for path in theirs:
        ours, other = tmp_path / "good" / path, tmp_path / "theirs" / path
        if path.suffix == ".parquet":
            table = pq.read_table(other)
            assert pq.read_table(ours).select(table.column_names).to_pydict() == table.to_pydict()
        elif path.suffix == ".json":
            assert json.loads(ours.read_text()) == json.loads(other.read_text()), path
        else:
            assert ours.exists(), path


def test_a_recording_that_ends_with_the_time_of_its_last_frame(
    run: Run, dataset: Path, tmp_path: Path, hashes: Callable[[Path], dict[str, str]]
):
    other = shutil.copytree(dataset, tmp_path / "other")
    path = other / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = "videos/observation.images.front/to_timestamp"
    earlier = [(table[name].to_numpy() - 0.1).tolist()]
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, earlier), path)
    run("--root", dataset, "--output", tmp_path / "good")
    run("--root", other, "--output", tmp_path / "same")
    for part in ("videos", "data"):
        assert hashes(tmp_path / "same" / part) == hashes(tmp_path / "good" / part)


@pytest.mark.parametrize("more", [(), ("--trim",)])
def test_a_camera_that_lerobot_removed(run: Run, dataset: Path, tmp_path: Path, more: tuple):
    """Its statistics of episodes stay behind, at which LeRobot's own deletion stops."""
    camera, removed = "observation.images.front", tmp_path / "removed"
    remove_feature(LeRobotDataset("local/cups", root=dataset), camera, removed, "local/removed")
    run("--root", removed, "--output", tmp_path / "good", *more)
    made = LeRobotDataset("local/good", root=tmp_path / "good")
    assert made.num_episodes == 3
    assert made.meta.stats is not None
    assert camera not in made.meta.features
    assert "action" in made.meta.stats
    assert labelled(tmp_path / "good").scores


def test_the_same_again_changes_nothing_and_other_rules_replace(
    run: Run, dataset: Path, tmp_path: Path
):
    output = tmp_path / "good"
    run("--root", dataset, "--output", output)
    before = contents(output)
    assert "nothing changed" in run("--root", dataset, "--output", output)
    assert contents(output) == before
    run("--root", dataset, "--output", output, "--keep-top", "0.4")
    assert LeRobotDataset("local/good", root=output).num_episodes == 3
    run("--root", dataset, "--output", output, "--min-success", "-0.4", "--min-voc", "0")
    assert list(json.loads((output / "curation.json").read_text())["kept"]) == ["0", "3", "4"]
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_what_was_curated_stays_as_it_is_under_the_same_rules(
    run: Run, dataset: Path, tmp_path: Path
):
    rules = ("--keep-top", "0.5")
    run("--root", dataset, "--output", tmp_path / "once", *rules)
    said = run("--root", tmp_path / "once", *rules)
    assert "already curated by these rules" in said
    run("--root", tmp_path / "once", *rules, "--output", tmp_path / "twice")
    once, twice = labelled(tmp_path / "once"), labelled(tmp_path / "twice")
    assert once.source.fingerprints == twice.source.fingerprints
    assert len(twice.provenance["curated"]) == 2
    # Other rules are judged anew, by what is left.
    assert "already" not in run("--root", tmp_path / "once", "--keep-top", "0.6")


def test_an_interruption_leaves_nothing_half_made(
    run: Run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "good"
    with monkeypatch.context() as patched:
        patched.setattr(lerobot_topreward.curate.write, "write_sidecar", stop)
        run("--root", dataset, "--output", output, code=130)
    assert list(tmp_path.iterdir()) == []
    # One that was killed could not even clear up.
    (tmp_path / ".good.curate" / "draft" / "meta").mkdir(parents=True)
    run("--root", dataset, "--output", output)
    assert labelled(output).episodes == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_videos_are_copied_where_nothing_is_dropped(run: Run, dataset: Path, tmp_path: Path):
    run("--root", dataset, "--output", tmp_path / "all", "--min-voc", "-1")
    video = "videos/observation.images.front/chunk-000/file-000.mp4"
    assert not os.path.samefile(tmp_path / "all" / video, dataset / video)
    assert filecmp.cmp(tmp_path / "all" / video, dataset / video, shallow=False)
    assert LeRobotDataset("local/all", root=tmp_path / "all").num_episodes == 5


@pytest.mark.parametrize("video", [False, True])
def test_files_of_an_episode_each_and_images_in_the_data(
    run: Run, record_dataset: RecordDataset, tmp_path: Path, video: bool
):
    root = record_dataset(
        lengths=(22, 21, 23), cameras=("front", "wrist"), video=video, file_per_episode=video
    )
    source = write_labels(root, tmp_path / "source", ends=(-0.1, -4, -0.1))
    run("--root", source, "--output", tmp_path / "good")
    made = LeRobotDataset("local/good", root=tmp_path / "good")
    whole = LeRobotDataset("local/source", root=source)
    assert made.num_frames == 45
    last, there = frame(made, 44), frame(whole, 65)
    for camera in ("observation.images.front", "observation.images.wrist"):
        np.testing.assert_array_equal(last[camera], there[camera])


def test_labels_that_lie_beside_the_dataset(
    run: Run, dataset: Path, recorded: Path, tmp_path: Path
):
    (tmp_path / "labels").mkdir()
    shutil.copyfile(dataset / SIDECAR_NAME, tmp_path / "labels" / SIDECAR_NAME)
    run("--root", recorded, "--labels", tmp_path / "labels", "--output", tmp_path / "good")
    made = labelled(tmp_path / "good")
    assert not [name for name in made.source.meta.features if name.startswith("topreward")]
    weighed = read_labels(made.source, episodes=None, config=WeightingConfig())
    assert weighed.labelled.all()

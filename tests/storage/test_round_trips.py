"""What LeRobot's own tools do to a labelled dataset, and what is left of its labels: all of it."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs.video import RGBEncoderConfig
from lerobot.datasets import dataset_tools as tools
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.rewards.sarm.rabc import RABCWeights
from trips import (
    LENGTHS,
    TASKS,
    Label,
    RecordDataset,
    Run,
    assert_columns_kept,
    assert_scores_kept,
    delete,
    evaluated,
    load,
    merge,
    remove,
    rows_of,
    split,
)

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import COLUMNS
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.labels import read_labels

# Edits that keep everything


@dataclass(frozen=True, slots=True)
class Edit:
    """What LeRobot does to a labelled dataset."""

    name: str
    make: Callable[[Path, Path], Sequence[LeRobotDataset]]  # dataset, folder for new ones
    kept: tuple[tuple[int, ...], ...]  # of each dataset made, the old episodes in their new order
    without: tuple[str, ...] = ()


def _merged_again(root: Path, folder: Path) -> list[LeRobotDataset]:
    first, second = split(root, folder / "parts", a=[0, 1], b=[2, 3, 4])
    return [merge([second.root, first.root], folder / "merged")]


def _merged_with_a_part(root: Path, folder: Path) -> list[LeRobotDataset]:
    [part] = split(root, folder / "parts", a=[3])
    return [merge([root, part.root], folder / "merged")]


def _deleted_twice(root: Path, folder: Path) -> list[LeRobotDataset]:
    once = delete(root, [0], folder / "once")
    return [delete(once.root, [2], folder / "twice")]


def _added(root: Path, folder: Path) -> list[LeRobotDataset]:
    extra = (np.zeros(sum(LENGTHS), np.float32), {"dtype": "float32", "shape": (1,), "names": None})
    made = tools.add_features(
        load(root), {"extra": extra}, output_dir=folder / "added", repo_id="local/added"
    )
    return [made]


def _recomputed(root: Path, _: Path) -> list[LeRobotDataset]:
    return [tools.recompute_stats(load(root))]


def _reencoded(root: Path, _: Path) -> list[LeRobotDataset]:
    return [tools.reencode_dataset(load(root), rgb_encoder=RGBEncoderConfig(vcodec="h264", crf=40))]


def _removed(name: str) -> Callable[[Path, Path], list[LeRobotDataset]]:
    return lambda root, folder: [remove(root, name, folder / "removed")]


ALL = tuple(range(len(LENGTHS)))
EDITS = [
    Edit("load", lambda root, _: [load(root)], (ALL,)),
    Edit("delete", lambda root, folder: [delete(root, [1], folder / "a")], ((0, 2, 3, 4),)),
    Edit("delete twice", _deleted_twice, ((1, 2, 4),)),
    Edit("split", lambda r, folder: split(r, folder, a=[0, 3], b=[1, 2, 4]), ((0, 3), (1, 2, 4))),
    Edit("split and merge", _merged_again, ((2, 3, 4, 0, 1),)),
    Edit("merge with its own part", _merged_with_a_part, ((0, 1, 2, 3, 4, 3),)),
    Edit("recompute statistics", _recomputed, (ALL,)),
    Edit("add a feature", _added, (ALL,)),
    Edit("remove another's feature", _removed("observation.state"), (ALL,)),
    Edit("remove progress", _removed("topreward.progress"), (ALL,), ("topreward.progress",)),
    Edit("remove advantage", _removed("topreward.advantage"), (ALL,), ("topreward.advantage",)),
    Edit("reencode videos", _reencoded, (ALL,)),
]
QUICK = {"delete", "split", "recompute statistics"}


@pytest.mark.parametrize(
    "edit",
    [pytest.param(e, id=e.name, marks=[pytest.mark.slow] * (e.name not in QUICK)) for e in EDITS],
)
def test_labels_outlive(edit: Edit, copy: Path, labelled: Path, tmp_path: Path, run: Run) -> None:
    before, judged = rows_of(labelled), evaluated(run, labelled)
    for made, kept in zip(edit.make(copy, tmp_path / "made"), edit.kept, strict=True):
        assert made.num_episodes == len(kept)
        assert_columns_kept(made.root, before, without=edit.without)
        assert_scores_kept(made.root, labelled)
        assert evaluated(run, made.root) == [judged[old] for old in kept]


@pytest.mark.slow
def test_columns_that_were_removed_are_made_of_the_raw_scores(
    labelled: Path, tmp_path: Path
) -> None:
    made = remove(labelled, "topreward.advantage", tmp_path / "removed")
    whole = open_labelled(repo_id=None, root=labelled, revision=None)
    found = open_labelled(repo_id=None, root=made.root, revision=None)
    np.testing.assert_array_equal(found.stored.progress, whole.stored.progress)
    np.testing.assert_array_equal(found.stored.advantage, whole.stored.advantage)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["topreward.log_prob", "topreward.scored"])
def test_what_cannot_be_made_again_is_named(
    labelled: Path, tmp_path: Path, run: Run, name: str
) -> None:
    made = remove(labelled, name, tmp_path / "removed")
    code, _, err = run("evaluate", "--root", made.root)
    assert code == 2
    assert f"lacks the column {name}: it was removed" in err
    assert "label again, which takes seconds where the raw scores are kept" in err


@pytest.mark.slow
def test_datasets_labelled_alike_are_merged(
    labelled: Path, others: Path, tmp_path: Path, run: Run
) -> None:
    made = merge([others, labelled], tmp_path / "merged")
    assert_columns_kept(made.root, rows_of(labelled) | rows_of(others))
    assert_scores_kept(made.root, labelled, others)
    assert evaluated(run, made.root) == evaluated(run, others) + evaluated(run, labelled)


@pytest.mark.slow
def test_tasks_that_were_corrected_keep_their_old_scores(
    copy: Path, labelled: Path, run: Run
) -> None:
    corrected: dict[str, str] = dict.fromkeys(TASKS, "tidy up")
    tools.modify_tasks(load(copy), task_replacements=corrected)
    assert_columns_kept(copy, rows_of(labelled))
    assert_scores_kept(copy, labelled, tasks=False)
    code, _, err = run("evaluate", "--root", copy)
    assert code == 0
    [line] = [line for line in err.splitlines() if "was edited since it was labeled" in line]
    assert "they do not know of corrected tasks" in line


@pytest.mark.slow
def test_images_become_videos(
    record_dataset: RecordDataset, label: Label, tmp_path: Path, run: Run
) -> None:
    source = record_dataset(
        lengths=(9, 8), tasks=TASKS, cameras=("front",), size=(64, 64), video=False
    )
    root = tmp_path / "labelled"
    assert label(source, root) == 2
    made = tools.convert_image_to_video_dataset(
        load(root), output_dir=tmp_path / "videos", repo_id="local/videos"
    )
    assert_columns_kept(made.root, rows_of(root))
    assert_scores_kept(made.root, root)
    assert evaluated(run, made.root) == evaluated(run, root)


@pytest.mark.slow
def test_lerobots_command_in_place(
    copy: Path, labelled: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lerobot.scripts.lerobot_edit_dataset import main as edit

    options = ("--repo_id=local/copy", f"--root={copy}", f"--new_root={copy}")
    operation = ("--operation.type=delete_episodes", "--operation.episode_indices=[0,3]")
    monkeypatch.setattr(sys, "argv", ["lerobot-edit-dataset", *options, *operation])
    edit()
    assert not (copy / SIDECAR_NAME).exists()
    assert_columns_kept(copy, rows_of(labelled))
    judged = evaluated(run, labelled)
    assert evaluated(run, copy) == [judged[old] for old in (1, 2, 4)]


# Used


@pytest.mark.slow
def test_training_reads_what_is_left(labelled: Path, tmp_path: Path) -> None:
    made = delete(labelled, [1], tmp_path / "fewer")
    labels = {}
    for name, root in (("before", labelled), ("after", made.root)):
        source = open_source(repo_id=None, root=root, revision=None)
        labels[name] = read_labels(source, episodes=None, config=WeightingConfig())
    kept = np.repeat([True, False, True, True, True], LENGTHS)
    assert labels["before"].prefix_end is not None
    for name in ("progress", "log_prob", "labelled", "prefix_end"):
        np.testing.assert_array_equal(
            getattr(labels["after"], name), getattr(labels["before"], name)[kept]
        )


def test_some_episodes_are_loaded(labelled: Path) -> None:
    dataset = load(labelled, episodes=[1, 3])
    before = pq.read_table(labelled / "data")
    assert len(dataset) == LENGTHS[1] + LENGTHS[3]
    for position in range(len(dataset)):
        item: Any = dataset[position]
        for name in COLUMNS:
            assert item[name].item() == before[name][int(item["index"])].as_py()


def test_lerobots_weights_read_the_sidecar(labelled: Path) -> None:
    progress = pq.read_table(labelled / "data")["topreward.progress"].to_numpy()
    weights = RABCWeights(labelled / SIDECAR_NAME, chunk_size=2, device=torch.device("cpu"))
    assert [weights.progress_lookup[index] for index in range(sum(LENGTHS))] == progress.tolist()


def test_a_stock_policy_takes_a_batch(labelled: Path) -> None:
    from lerobot.configs.types import PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.utils.feature_utils import dataset_to_policy_features

    times = {"action": [0.0, 0.1]}
    dataset = load(labelled, delta_timestamps=times)
    features: dict[str, PolicyFeature] = dataset_to_policy_features(dataset.meta.features)
    assert not [name for name in features if name.startswith("topreward")]
    config = ACTConfig(
        input_features={name: feature for name, feature in features.items() if name != "action"},
        output_features={"action": features["action"]},
        device="cpu",
        chunk_size=2,
        n_action_steps=2,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        use_vae=False,
        pretrained_backbone_weights=None,
    )
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=2)))  # pyright: ignore
    assert batch["topreward.scored"].tolist() == [True, False]
    loss, _ = ACTPolicy(config).forward(batch)
    assert torch.isfinite(loss)


def test_a_description_that_was_lost_is_said(copy: Path, run: Run) -> None:
    (copy / SIDECAR_NAME).unlink()
    path = copy / "meta/info.json"
    info = json.loads(path.read_text())
    del info["features"]["topreward.log_prob"]["info"]
    path.write_text(json.dumps(info))
    code, _, err = run("evaluate", "--root", copy)
    assert code == 2
    assert "info.json does not say how its scores were made" in err
    source = open_source(repo_id=None, root=copy, revision=None)
    weighed = read_labels(source, episodes=None, config=WeightingConfig())
    assert weighed.labelled.all()  # training needs no more than the columns


@pytest.mark.parametrize(
    "info",
    [
        [],
        {"scoring": []},
        {"scoring": {"vlm": 1}},
        {"horizon_frames": "x"},
        {"scale": "x"},
        {"normalize": {}},
        {"debias": None},
        {"debias": "static", "scale": "prob"},
        {"contrast": 4},
        {"contrast": True},
        {"contrast": 2.0},
    ],
)
def test_a_description_is_input_from_a_stranger(copy: Path, info: Any) -> None:
    (copy / SIDECAR_NAME).unlink()
    path = copy / "meta/info.json"
    content = json.loads(path.read_text())
    feature = content["features"]["topreward.log_prob"]
    feature["info"] = info if isinstance(info, list) else {**feature["info"], **info}
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"does not say how its (scores were|progress was) made"):
        open_labelled(repo_id=None, root=copy, revision=None)

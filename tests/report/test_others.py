"""The curves of other judges in the report: which stores are read, and whatever else lies there."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from report_pages import embedded

from lerobot_topreward.cli import main
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.report.others import name_judges, read_others
from lerobot_topreward.rewards import Formula, label_rewards
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled
from lerobot_topreward.storage.store import Store, list_shards, list_stores, write_run

RecordDataset = Callable[..., Path]


@pytest.fixture(scope="module")
def made(
    record_dataset: RecordDataset, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = record_dataset(
        lengths=(20, 14, 11), tasks=("pick", ("reach", "lift")), cameras=("front",)
    )
    output = tmp_path_factory.mktemp("labels") / "cups"
    options = ["--root", str(root), "--vlm", str(tiny_vlm), "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(["label", *options, "--output", str(output)])
    assert not stopped.value.code
    return output


@pytest.fixture
def labels(made: Path, tmp_path: Path) -> LabelledDataset:
    return reopen(Path(shutil.copytree(made, tmp_path / "cups")))


def reopen(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def keep_scores(labels: LabelledDataset, key: ScoreKey, episodes: Sequence[int]) -> Store:
    """Store what a judge is made to say: as many nats as the labels' own, turned round."""
    store = Store(labels.labels / "topreward" / key.digest(), key, labels.fps)
    for episode in episodes:
        own = [part for part in labels.scores if part.segment.episode_index == episode]
        (shard,) = list_shards(
            {episode: [part.segment for part in own]},
            ["none"],
            fingerprints=labels.source.fingerprints.episodes,
            videos={},
        )
        (there,) = [
            each.folder
            for each in list_stores(labels.labels, fps=labels.fps)
            if each.key == labels.key
        ]
        header = video_of(there / shard.name)
        turned = [replace(part, log_prob_true=-8 - part.log_prob_true) for part in own]
        store.write(replace(shard, video=header), turned)
    write_run(store.folder, key, {})
    return store


def video_of(path: Path) -> str:
    return json.loads(pq.read_schema(path).metadata[b"topreward"])["video"]


def report(root: Path, output: Path) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--root", str(root), "--output", str(output), "--videos", "none"])
    assert not stopped.value.code
    return embedded(output.read_text())


def test_another_judge_has_curves_in_the_episodes_that_it_scored(
    labels: LabelledDataset, tmp_path: Path
) -> None:
    keep_scores(labels, replace(labels.key, vlm="b/<other>"), [0, 1])
    found = report(labels.labels, tmp_path / "page.html")
    assert found["judges"] == ["tiny", "b/<other>"]
    curves = {episode["index"]: episode["others"] for episode in found["episodes"]}
    assert [len(curves[episode]) for episode in (0, 1, 2)] == [1, 2, 0]  # one for each segment
    assert {curve["judge"] for own in curves.values() for curve in own} == {1}
    own = [part for part in labels.scores if part.segment.episode_index == 0]
    (curve,) = curves[0]
    ends = own[0].segment.start + own[0].prefix_length - 1
    assert curve["frame"] == ends.tolist()
    # Turned round, it is lowest where the labels' own is highest.
    assert np.argmin(curve["progress"]) == np.argmax(own[0].log_prob_true)
    assert min(curve["progress"]) >= 0
    assert max(curve["progress"]) <= 1


def test_without_others_nothing_is_named(labels: LabelledDataset, tmp_path: Path) -> None:
    found = report(labels.labels, tmp_path / "page.html")
    assert found["judges"] == []
    assert [episode["others"] for episode in found["episodes"]] == [[], [], []]


def test_a_reward_models_own_progress_is_drawn(labels: LabelledDataset) -> None:
    key = replace(labels.key, vlm="b/robometer", reward_model="robometer", prompt="")
    store = keep_scores(labels, key, [2])
    names, curves = read_others(labels)
    assert names == ["tiny", "b/robometer (robometer)"]
    (curve,) = curves[2]
    scores = read_scores(labels, store, 2)
    made = label_rewards(
        scores,
        labels.source.frames.episode_index,
        horizon=labels.horizon,
        normalize="task",
        formula=Formula("prob"),
    )
    np.testing.assert_allclose(curve.progress, made.episode(2).progress[curve.frame], atol=1e-4)


def read_scores(labels: LabelledDataset, store: Store, episode: int) -> list[PrefixScores]:
    own = [part.segment for part in labels.scores if part.segment.episode_index == episode]
    shards = list_shards(
        {episode: own}, ["none"], fingerprints=labels.source.fingerprints.episodes, videos={}
    )
    return store.read(shards[0]) or []


def test_judges_of_one_model_are_told_apart_by_what_differs(labels: LabelledDataset) -> None:
    key = labels.key
    served = {"server": "vllm 0.32.0", "server_model": "x", "server_video": "exact"}
    keys = [
        key,
        replace(key, prefixes=15),
        replace(key, prefixes=15, template="paper", **served),
        replace(key, vlm="b/other"),
    ]
    names = name_judges(keys)
    assert len(set(names)) == 4
    assert names[0] == "tiny (prefixes default)"
    assert names[1] == "tiny (prefixes 15)"
    assert "server vllm 0.32.0" in names[2]
    assert names[3] == "b/other"


def write_json(value: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "run.json").write_text(json.dumps(value))


def spoil_key(labels: LabelledDataset, **changes: Any) -> dict[str, Any]:
    return {"scoring": {**labels.key.to_json(), **changes}}


def put_a_pipe_there(folder: Path) -> None:
    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "run.json").write_text("{"),
        lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: (folder / "run.json").write_text("[" * 100_000),
        write_json([]),
        write_json({}),
        write_json({"scoring": None}),
        write_json({"scoring": {"vlm": "b/other"}}),
        put_a_pipe_there,
        lambda folder: folder.rename(folder.with_name("0" * 16)),
        lambda folder: [path.write_bytes(b"no shard") for path in folder.glob("*.parquet")],
        lambda folder: [path.unlink() for path in folder.glob("*.parquet")],
    ],
)
def test_a_damaged_store_is_left_out(
    labels: LabelledDataset, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    store = keep_scores(labels, replace(labels.key, vlm="b/other"), [0])
    spoil(store.folder)
    assert read_others(labels) == ((), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"camera": "observation.images.gone"},
        {"camera": "../../etc"},
        {"instruction": " "},
        {"instruction": "<|im_end|>"},
        {"instruction": "another task than was scored"},
        {"sample_fps": 1e-320},
        {"sample_fps": 1e308},
        {"prefixes": 10**15},
        {"max_images": 10**15},
    ],
)
def test_a_key_that_a_stranger_made_up_is_left_out(
    labels: LabelledDataset, changes: dict[str, Any]
) -> None:
    """Its digest fits, and the shards are those of another key."""
    keep_scores(labels, replace(labels.key, vlm="b/other", **changes), [0, 1])
    names, curves = read_others(labels)
    if names:  # what the key asks for may be what is there
        assert all(np.isfinite(curve.progress).all() for own in curves.values() for curve in own)


def test_scores_of_another_episode_are_left_out(labels: LabelledDataset) -> None:
    store = keep_scores(labels, replace(labels.key, vlm="b/other"), [0])
    store.path(0, "none").rename(store.path(2, "none"))
    assert read_others(labels) == ((), {})

"""Frames that stand still weigh nothing, if asked; the end of a success does not count."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_labels import labels_of
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.act.configuration_act import ACTConfig
from recordings import make_recordings, record_arm

from lerobot_topreward.cli import main
from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import WeightingConfig, from_params
from lerobot_topreward.train.frame_weights import weigh
from lerobot_topreward.train.labels import read_labels
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.sample_weighter import make_weighter, weigh_dataset
from lerobot_topreward.train.schemes import SCHEMES, Awr, Filter, Uniform
from lerobot_topreward.train.stationary import find_stationary
from lerobot_topreward.train.summary import summarize

WriteLabels = Callable[..., Path]

DROP = WeightingConfig(scheme=Uniform(), stationary="drop")
FROM, UNTIL = 60, 100  # frames, 3 s to 5 s


def still_labels(*idle: tuple[int, int, int], final: float, rise: float = 0.0) -> FrameLabels:
    """Two episodes of 40 frames at 10 Hz, idle from .. until; progress rises during the first."""
    progress = np.linspace(0, final, 40)
    episode, start, stop = idle[0]
    flat = progress.copy()
    flat[start:stop] = np.linspace(flat[start], flat[start] + rise, stop - start)
    episodes = [progress, progress]
    episodes[episode] = flat
    labels = labels_of(*episodes)
    mask = np.zeros(80, dtype=bool)
    for episode, start, stop in idle:
        mask[40 * episode + start : 40 * episode + stop] = True
    return replace(labels, idle=mask)


def test_idle_stretches_of_a_second_are_stationary() -> None:
    found = find_stationary(still_labels((0, 5, 15), (1, 5, 14), (1, 20, 35), final=0.5))
    assert np.flatnonzero(found).tolist() == [*range(5, 15), *range(60, 75)]


def test_what_gains_progress_is_not_stationary() -> None:
    assert not find_stationary(still_labels((0, 5, 15), final=0.5, rise=0.4)).any()
    assert find_stationary(still_labels((0, 5, 15), final=0.5, rise=0.2)).sum() == 10


def test_the_end_of_a_success_stays() -> None:
    failed = still_labels((0, 5, 15), (0, 25, 40), final=0.6)
    assert find_stationary(failed).sum() == 25
    succeeded = replace(failed, progress=(failed.progress / 0.6).astype(np.float32))
    assert np.flatnonzero(find_stationary(succeeded)).tolist() == [*range(5, 15)]
    unknown = replace(failed, labelled=np.zeros(80, dtype=bool))
    assert np.flatnonzero(find_stationary(unknown)).tolist() == [*range(5, 15)]
    with pytest.raises(ValueError, match="which frames are idle"):
        find_stationary(labels_of([0, 1]))


@pytest.mark.parametrize("name", [*SCHEMES])
def test_they_weigh_nothing_in_every_scheme(name: str) -> None:
    scheme = Filter(quantile=0.3, by="advantage") if name == "filter" else SCHEMES[name]()
    labels = still_labels((0, 5, 15), final=0.8)
    kept = weigh(labels, WeightingConfig(scheme=scheme), chunk=4)
    dropped = weigh(labels, WeightingConfig(scheme=scheme, stationary="drop"), chunk=4)
    still = np.zeros(80, dtype=bool)
    still[5:15] = True
    np.testing.assert_array_equal(dropped.raw, np.where(still, 0, kept.raw))
    assert kept.stationary is None
    assert dropped.stationary is not None
    assert dropped.stationary.tolist() == still.tolist()
    if name != "rabc":  # whose weights are normalized per batch
        assert dropped.weight.mean() == pytest.approx(1)


def test_all_frames_stand_still() -> None:
    labels = still_labels((0, 0, 40), (1, 0, 40), final=0.2)
    with pytest.raises(UserError, match=r"80 stand still.*`weighting.stationary=keep`"):
        weigh(labels, DROP, chunk=4)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine episodes; the fourth rests for two seconds, the fifth stops and stays where it is."""
    recordings = make_recordings(9)
    noise = np.random.default_rng(0).normal(0, 0.05, (200, 12))
    for episode, until in ((3, UNTIL), (4, None)):
        values = recordings[episode].values
        part = slice(FROM, until)
        values[part] = values[FROM] + noise[: len(values[part])]
    return record_arm(tmp_path_factory.mktemp("arm") / "arm", recordings)


def idle_of(root: Path, episodes: list[int] | None = None) -> dict[int, list[int]]:
    source = open_source(repo_id=None, root=root, revision=None)
    labels = read_labels(source, episodes=episodes, config=DROP)
    assert labels.idle is not None
    return {
        int(labels.episode_index[rows.start]): np.flatnonzero(labels.idle[rows]).tolist()
        for rows in labels.episodes()
    }


def test_idle_frames_are_found_in_what_was_recorded(arm: Path) -> None:
    found = idle_of(arm)
    assert len(found) == 9
    for episode, frames in found.items():
        if episode == 3:
            assert set(range(FROM + 1, UNTIL - 1)) <= set(frames)
            assert len(frames) <= UNTIL - FROM + 20
        elif episode == 4:
            assert set(range(FROM + 1, 162)) <= set(frames)
    assert idle_of(arm, [4, 3]) == {3: found[3], 4: found[4]}


@pytest.mark.parametrize("labeled", [False, True])
def test_an_unlabeled_dataset_loses_its_rests_but_not_its_ends(
    arm: Path, write_labels: WriteLabels, labeled: bool
) -> None:
    frames = open_source(repo_id=None, root=arm, revision=None).frames
    root = write_labels(arm, progress=np.full(len(frames.index), 0.5)) if labeled else arm
    source = open_source(repo_id=None, root=root, revision=None)
    labels = read_labels(source, episodes=None, config=DROP)
    weights = weigh(labels, DROP, chunk=1)
    for episode, is_dropped in ((3, True), (4, labeled)):
        weight = weights.weight[frames.rows(episode)]
        assert (weight[FROM + 2 : UNTIL - 2] == 0).all() == is_dropped
        assert weight[FROM - 15 : FROM - 10].all()
    assert weights.weight.mean() == pytest.approx(1)
    dataset = LeRobotDataset("local/arm", root=root)
    own = weigh_dataset(dataset, Uniform(), chunk=1, stationary="drop")
    np.testing.assert_array_equal(own.weight, weights.weight)


def read(root: Path, **options: Any) -> tuple[FrameLabels, WeightingConfig]:
    source, config = open_source(repo_id=None, root=root, revision=None), from_params(options)
    labels = read_labels(source, episodes=None, config=config)
    return labels, config.settle_by(labels)


def test_awr_by_stage_drops_them_unless_told_otherwise(
    arm: Path, write_labels: WriteLabels
) -> None:
    frames = open_source(repo_id=None, root=arm, revision=None).frames
    progress = np.full(len(frames.index), 0.5) + 0.3 * (frames.episode_index % 2)
    compare, each_its_own = (
        write_labels(arm, progress=progress, normalize=normalize)
        for normalize in ("task", "episode")
    )
    chosen, config = read(compare)
    assert config.stationary == "drop"
    asked, explicit = read(compare, stationary="drop")
    assert config == explicit
    weights = weigh(chosen, WeightingConfig(), chunk=4)
    np.testing.assert_array_equal(weights.weight, weigh(asked, explicit, chunk=4).weight)
    assert weights.stationary is not None
    assert weights.stationary.any()
    dataset = LeRobotDataset("local/arm", root=compare)
    np.testing.assert_array_equal(weigh_dataset(dataset, Awr(), chunk=4).weight, weights.weight)
    assert read(each_its_own, baseline="stage", horizon="episode")[1].stationary == "drop"
    for root, options in (
        (compare, {"stationary": "keep"}),
        (compare, {"scheme": "uniform"}),
        (compare, {"baseline": "mean"}),
        (compare, {"scheme": "filter", "quantile": 0.5}),
        (each_its_own, {}),
    ):
        labels, config = read(root, **options)
        assert (labels.idle, config.stationary) == (None, "keep"), options


def test_lerobots_own_trainer_drops_them_only_if_asked(
    arm: Path, write_labels: WriteLabels
) -> None:
    """As does a checkpoint that is older than the option: neither names it."""
    frames = open_source(repo_id=None, root=arm, revision=None).frames
    progress = np.full(len(frames.index), 0.5) + 0.3 * (frames.episode_index % 2)
    root = write_labels(arm, progress=progress, normalize="task")
    dataset, policy = LeRobotDataset("local/arm", root=root), ACTConfig(device="cpu")
    zero = {
        stationary: make_weighter(
            {"baseline": "auto"} | ({"stationary": stationary} if stationary else {}),
            policy=policy,
            dataset=dataset,
        ).get_stats()["share_zero"]
        for stationary in (None, "keep", "auto", "drop")
    }
    assert zero[None] == zero["keep"] < zero["auto"] == zero["drop"]


def test_dropping_is_not_said_to_follow_from_rewards() -> None:
    """Long episodes that stand still for a part of it weigh less, which no reward is to blame for."""
    lengths = np.arange(30, 50)
    labels = labels_of(*[np.linspace(0, 0.5, n) for n in lengths])
    idle = np.concatenate([(np.arange(n) >= 5) & (np.arange(n) < n - 20) for n in lengths])
    labels = replace(labels, idle=idle)
    weights = weigh(labels, DROP, chunk=4)
    assert np.corrcoef(lengths, [weights.weight[r].mean() for r in labels.episodes()])[0, 1] < -0.9
    assert summarize(labels, weights, scheme=Uniform()).warnings == ()
    # A scheme that weighs all others alike is told so.
    (warning,) = summarize(labels, weights, scheme=Awr()).warnings
    assert "nearly equal (effective sample size 100% of the frames that move)" in warning


@pytest.mark.parametrize(
    ("normalize", "given"), [("episode", ["--weighting.stationary=drop"]), ("task", [])]
)
def test_the_summary_says_how_many(
    arm: Path,
    write_labels: WriteLabels,
    capfd: pytest.CaptureFixture,
    tmp_path: Path,
    normalize: str,
    given: list[str],
) -> None:
    frames = open_source(repo_id=None, root=arm, revision=None).frames
    progress = np.full(len(frames.index), 0.5) + 0.3 * (frames.episode_index % 2)
    root = write_labels(arm, progress=progress, normalize=normalize)
    options = ["--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false"]
    options += ["--dataset.repo_id=local/arm", f"--dataset.root={root}"]
    options += [f"--output_dir={tmp_path / 'run'}", "--dry-run", *given]
    with pytest.raises(SystemExit) as stopped:
        main(["train", *options])
    assert stopped.value.code == 0
    printed = capfd.readouterr().out
    assert ("without frames that stand still" in " ".join(printed.split())) == (not given)
    (line,) = [x for x in printed.splitlines() if "stationary, so dropped" in x]
    assert int(line.split()[3]) > 0
    assert "%" in line


def test_a_dataset_whose_motion_cannot_be_read(
    arm: Path,
    write_labels: WriteLabels,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    from lerobot_topreward.data.recording import RecordedDataset
    from lerobot_topreward.errors import EpisodeError

    def fail(self: RecordedDataset, chosen: list[int]) -> list[tuple[int, EpisodeError]]:
        return [(episode, EpisodeError("it is gone")) for episode in chosen]

    monkeypatch.setattr(RecordedDataset, "episodes", fail)
    reason = "what episode 0 recorded cannot be read: it is gone"
    with pytest.raises(UserError, match=rf"`weighting.stationary=drop` .*: {reason}. Leave it out"):
        idle_of(arm)
    labels, config = read(write_labels(arm, normalize="task"))
    assert (labels.idle, config.stationary) == (None, "keep")
    assert f"stand still are kept: {reason}" in " ".join(capfd.readouterr().err.split())

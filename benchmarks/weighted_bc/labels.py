"""What the labels say of each kind of demonstration, and what weights are made of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.judging.episode_metrics import episode_metrics
from lerobot_topreward.judging.metrics import roc_auc
from lerobot_topreward.judging.rules import RulesConfig, judge
from lerobot_topreward.rewards import normalize_episode, normalize_task
from lerobot_topreward.simulation.truth import TRUTH_FILE
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.frame_weights import weigh
from lerobot_topreward.train.labels import read_labels
from lerobot_topreward.train.records import FrameLabels, success_scores
from lerobot_topreward.train.schemes import Awr, Rabc, TopAwr

CHUNK = 16  # frames, ACT's
_OLD, _STAGE = Awr(baseline="mean"), Awr(baseline="stage", horizon="episode")


def print_labels(
    truth_of: Path, *, bad_share: float, task: Path, paper: Path | None = None
) -> None:
    """Print how well success scores tell good from bad, and the average weight of every kind.

    Args:
        truth_of: the simulated dataset, which knows what happened.
        bad_share: of its episodes, 0..1, which the filter leaves out.
        task: the same dataset labeled with ``--normalize task --scale prob``.
        paper: labeled with ``--config paper``, where it was.
    """
    truth = pd.read_parquet(truth_of / TRUTH_FILE)
    kinds = truth["kind"].to_numpy()
    labels = _read(task)
    first = [rows.start for rows in labels.episodes()]
    episodes = truth.iloc[first]
    success = episodes["success"].to_numpy()
    score = success_scores(labels)
    print(f"\nsuccess score: ROC-AUC {roc_auc(score, success):.2f}; P(True) > 0.5 lets pass")
    for kind in dict.fromkeys(kinds):
        mine = (episodes["kind"] == kind).to_numpy()
        print(f"  {int((score[mine] > np.log(0.5)).sum()):3} of {int(mine.sum()):3} {kind}")
    better = score >= np.quantile(score, bad_share)
    for name, kept in (
        (f"the better {1 - bad_share:.0%}", better),
        ("curate's default rule", _curated(task)),
    ):
        print(f"{name} keeps {(kept & success).sum()} good and {(kept & ~success).sum()} bad ones")
    logarithm = replace(labels, progress=_from_log_prob(labels))
    alone = replace(labels, progress=_per_episode(labels))
    tenth = truth["frame_index"] == (
        truth.groupby("episode_index").frame_index.transform("max") // 10
    )
    for name, which in (("prob", labels), ("log-prob", logarithm)):
        start = which.progress[first].mean()
        print(
            f"progress of {name}: {start:.2f} at first, {which.progress[tenth].mean():.2f} after a tenth"
        )
    print("\naverage weight by kind, and effective sample size")
    for name, which, config in (
        ("awr-old, log-prob", logarithm, WeightingConfig(scheme=_OLD)),
        ("awr-old", labels, WeightingConfig(scheme=_OLD)),
        ("awr-4s", labels, WeightingConfig(scheme=replace(_OLD, horizon=4))),
        ("awr-stage", labels, WeightingConfig(scheme=_STAGE)),
        ("awr-old, per episode", alone, WeightingConfig(scheme=_OLD)),
        ("by stage, per episode", alone, WeightingConfig(scheme=replace(_STAGE, horizon=None))),
        ("awr-stage, per episode", alone, WeightingConfig(scheme=_STAGE)),
        ("rabc", labels, WeightingConfig(scheme=Rabc(), normalize="dataset")),
    ):
        print_weights(name, which, config, kinds=kinds)
    if paper is not None:
        config = WeightingConfig(scheme=TopAwr(span="prefix"))
        print_weights("top-awr", _read(paper), config, kinds=kinds)


def print_weights(
    name: str, labels: FrameLabels, config: WeightingConfig, *, kinds: np.ndarray
) -> None:
    """Print the average weight of each kind of frame, and the effective sample size."""
    weights = weigh(labels, config, chunk=CHUNK)
    means = "  ".join(
        f"{kind} {weights.weight[kinds == kind].mean(dtype=np.float64):.2f}"
        for kind in dict.fromkeys(kinds)
    )
    print(f"  {name:22} {means}  ({weights.effective / len(weights.index):.1%})")


def _curated(root: Path) -> Bool[np.ndarray, " episodes"]:
    dataset = open_labelled(repo_id=None, root=root, revision=None)
    metrics = episode_metrics(dataset.scores, dataset.rewards(), fps=dataset.fps)
    return np.array([verdict.keep for verdict in judge(metrics, RulesConfig())])


def _read(root: Path) -> FrameLabels:
    source = open_source(repo_id=None, root=root, revision=None)
    return read_labels(source, episodes=None, config=WeightingConfig(stationary="keep"))


def _from_log_prob(labels: FrameLabels) -> np.ndarray:
    """Progress as ``--scale log-prob`` makes it, but by quantiles of frames, not of prefixes."""
    progress = np.zeros_like(labels.progress)
    for task in np.unique(labels.task_index):
        rows = labels.task_index == task
        progress[rows] = normalize_task([labels.log_prob[rows]])[0]
    return progress


def _per_episode(labels: FrameLabels) -> np.ndarray:
    """Progress as ``--normalize episode --scale prob`` makes it."""
    progress = [normalize_episode(np.exp(labels.log_prob[rows])) for rows in labels.episodes()]
    return np.concatenate(progress)

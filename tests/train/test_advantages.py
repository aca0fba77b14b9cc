"""What frames gain beyond what is usual from the same progress on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from frame_labels import labels_of

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.advantages import fit_usual, gain_beyond_usual
from lerobot_topreward.train.config import WeightingConfig, from_params
from lerobot_topreward.train.frame_weights import weigh
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.schemes import Awr

TO_END = Awr(baseline="stage", horizon="episode")


def test_the_usual_gain_is_the_curve_that_the_frames_lie_on() -> None:
    rng = np.random.default_rng(0)
    progress = rng.random(4000)
    episode = rng.integers(0, 40, 4000)
    gain = np.sin(3 * progress) + rng.normal(0, 0.1, 4000)
    usual = fit_usual(progress, gain, episode)
    inner = (progress > 0.03) & (progress < 0.97)
    np.testing.assert_allclose(usual[inner], np.sin(3 * progress[inner]), atol=0.04)


def test_the_usual_end_never_falls_with_progress() -> None:
    rng = np.random.default_rng(1)
    progress, episode = rng.random(1000), rng.integers(0, 20, 1000)
    gain = progress + rng.normal(0, 1, 1000)
    order = np.argsort(progress)
    assert (np.diff(fit_usual(progress, gain, episode)[order]) < 0).any()
    assert (np.diff(fit_usual(progress, gain, episode, rises=True)[order]) >= 0).all()


@pytest.mark.parametrize(("frames", "episodes"), [(59, 59), (1000, 8), (1000, 1), (1, 1)])
def test_too_little_data_gives_the_mean(frames: int, episodes: int) -> None:
    """Of eight episodes that follow each other by progress, no two bins have five."""
    progress = np.linspace(0, 1, frames)
    episode = np.arange(frames) * episodes // frames
    gain = progress**2
    np.testing.assert_array_equal(fit_usual(progress, gain, episode), np.full(frames, gain.mean()))


def test_progress_that_is_the_same_everywhere() -> None:
    gain = np.arange(613.0)  # bins of 30 and of 31 frames
    usual = fit_usual(np.full(613, 0.1), gain, np.arange(613) % 30)
    np.testing.assert_allclose(usual, gain.mean())


@pytest.fixture
def mixed() -> FrameLabels:
    """Twelve episodes: those that rise from 0 to 1, quickly or slowly, and those that turn back."""
    rng = np.random.default_rng(2)
    episodes, prefixes = [], []
    for kind in range(12):
        frames = (60, 60, 120)[kind % 3]
        curve = np.linspace(0, 1, frames)
        if kind % 3 == 1:
            curve = np.where(curve < 0.5, curve, 1 - curve)
        before = sum(map(len, episodes))
        prefixes += [before + frames * part // 10 - 1 for part in range(1, 11)]
        episodes.append(np.clip(curve + rng.normal(0, 0.01, frames), 0, 1))
    return labels_of(*episodes, prefixes=prefixes)


def mean_of(labels: FrameLabels, scheme: Awr, kind: int, part: slice) -> float:
    weight = weigh(labels, WeightingConfig(scheme=scheme), chunk=10).weight
    chosen = [weight[rows][part] for rows in labels.episodes()[kind::3]]
    return float(np.mean(np.concatenate(chosen)))


def test_frames_of_episodes_that_fail_later_weigh_less(mixed: FrameLabels) -> None:
    """The first half of both kinds is the same: only how it ends tells them apart."""
    early = slice(5, 25)
    fails, succeeds = (mean_of(mixed, TO_END, kind, early) for kind in (1, 0))
    assert fails < 0.5 * succeeds
    local = Awr(baseline="stage", horizon=0.2)
    assert mean_of(mixed, local, 1, slice(5, 20)) > 0.8 * mean_of(mixed, local, 0, slice(5, 20))


def test_slow_is_not_bad_unless_asked(mixed: FrameLabels) -> None:
    slow, quick = (mean_of(mixed, TO_END, kind, slice(None)) for kind in (2, 0))
    assert slow == pytest.approx(quick, rel=0.15)
    asked = Awr(baseline="stage", horizon="episode", discount=0.9)
    assert mean_of(mixed, asked, 2, slice(None)) < 0.6 * mean_of(mixed, asked, 0, slice(None))
    # The gain over a second, which half as fast a demonstration has half of.
    second = Awr(horizon=1.0)
    assert mean_of(mixed, second, 2, slice(None)) < 0.6 * mean_of(mixed, second, 0, slice(None))


def test_the_advantage_is_what_is_gained_less_what_is_usual(mixed: FrameLabels) -> None:
    same = np.zeros_like(mixed.task_index)
    found = gain_beyond_usual(mixed, same, horizon=10, discount=None)
    progress = mixed.progress.astype(np.float64)
    gain, before = [], []
    for rows in mixed.episodes():
        curve = progress[rows]
        start = np.minimum(np.arange(len(curve)), len(curve) - 11)
        gain.append(curve[start + 10] - curve[start])
        before.append(curve[start])
    gains = np.concatenate(gain)
    usual = fit_usual(np.concatenate(before), gains, mixed.episode_index)
    np.testing.assert_allclose(found, gains - usual, atol=1e-6)
    assert abs(found.mean()) < 0.01


def test_each_task_has_its_own_usual_gain(mixed: FrameLabels) -> None:
    tasks = mixed.episode_index % 2
    both = gain_beyond_usual(mixed, tasks, horizon=10, discount=None)
    for task in (0, 1):
        rows = tasks == task
        part = mixed.select(rows)
        alone = gain_beyond_usual(part, np.zeros(rows.sum(), int), horizon=10, discount=None)
        np.testing.assert_allclose(both[rows], alone)


def test_noise_of_how_equal_episodes_end_makes_no_weights() -> None:
    rng = np.random.default_rng(5)
    episodes = [np.linspace(0, 0.97 + rng.uniform(-0.01, 0.01), 50) for _ in range(20)]
    weight = weigh(labels_of(*episodes), WeightingConfig(scheme=TO_END), chunk=5).weight
    assert np.exp(-0.5) < weight.min() < weight.max() < np.exp(0.5)  # a hundredth is a fifth of .05
    alike = labels_of(*[np.linspace(0, 1, 50)] * 20)
    np.testing.assert_allclose(weigh(alike, WeightingConfig(scheme=TO_END), chunk=5).weight, 1)


@pytest.mark.parametrize("normalize", ["task", "episode", None])
def test_what_nobody_has_decided_follows_from_the_labels(
    mixed: FrameLabels, normalize: Any
) -> None:
    labels = replace(mixed, normalize=normalize)
    compares = normalize == "task"
    chosen = TO_END if compares else Awr(baseline="mean")
    assert Awr().settle(labels) == chosen
    np.testing.assert_array_equal(Awr().weights(labels, chunk=10), chosen.weights(labels, chunk=10))
    said = Awr().explain(labels)
    assert said is not None
    assert ("`normalize=task`" in said) is not compares
    for given, expected in (
        (Awr(baseline="stage"), Awr(baseline="stage")),
        (Awr(baseline="mean"), Awr(baseline="mean")),
        (Awr(horizon=2.0), Awr(baseline="mean", horizon=2.0)),
        (Awr(horizon="episode"), TO_END),
        (Awr(discount=0.9), replace(TO_END, discount=0.9)),
    ):
        assert given.settle(labels) == expected == expected.settle(labels)
        assert given.explain(labels) is None


def test_an_episode_shorter_than_the_horizon(mixed: FrameLabels) -> None:
    labels = labels_of([0, 0.5, 1], [0.2], [0, 0.1, 0.1])
    for scheme in (Awr(baseline="stage"), TO_END):
        weight = weigh(labels, WeightingConfig(scheme=scheme), chunk=50).weight
        assert np.isfinite(weight).all()
        assert weight[0] > weight[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"baseline": "mean", "horizon": "episode"},
            r"needs `weighting.scheme=awr` and `weighting.baseline=stage`",
        ),
        (
            {"scheme": "rabc", "horizon": "episode"},
            r"needs `weighting.scheme=awr` and `weighting.baseline=stage`",
        ),
        ({"discount": 0.9, "baseline": "stage"}, r"with `weighting.horizon=episode` only"),
        ({"discount": 0.9, "horizon": 2.0}, r"with `weighting.horizon=episode` only"),
        (
            {"discount": 0.0, "baseline": "stage", "horizon": "episode"},
            r"`weighting.discount` must be > 0; got 0",
        ),
        (
            {"discount": 1.5, "baseline": "stage", "horizon": "episode"},
            r"`weighting.discount` must be 0..1; got 1.5",
        ),
        ({"horizon": 1e308}, r"`weighting.horizon` must be 0..1e\+15; got 1e\+308"),
        ({"unlabelled_weight": 1e300}, r"`weighting.unlabelled_weight` must be 0..1e\+15"),
        ({"w_max": 1e300}, r"`weighting.w_max` must be 0..1e\+15; got 1e\+300"),
        ({"horizon": "end"}, r"must be episode or a .*number; got 'end'"),
        ({"baseline": "stage", "horizon": -1.0}, r"`weighting.horizon` must be > 0; got -1"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_params(options)

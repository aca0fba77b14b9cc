import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lerobot_topreward.errors import UserError
from lerobot_topreward.train import schemes
from lerobot_topreward.train.config import WeightingConfig, as_params, from_params
from lerobot_topreward.train.frame_weights import episode_bounds, run_bounds, weigh
from lerobot_topreward.train.records import FrameLabels


def labels_of(
    *episodes: Sequence[float],
    tasks: Sequence[int] | None = None,
    unlabelled: Sequence[int] = (),
    prefixes: Sequence[int] | None = None,
    fps: float = 10.0,
) -> FrameLabels:
    """Labels of episodes by their progress; `unlabelled` are episodes, `prefixes` are rows."""
    lengths = [len(episode) for episode in episodes]
    episode_index = np.repeat(np.arange(len(episodes)), lengths)
    labelled = ~np.isin(episode_index, unlabelled)
    progress = np.where(labelled, np.concatenate(episodes), 0).astype(np.float32)
    task_index = np.repeat([0] * len(episodes) if tasks is None else tasks, lengths)
    return FrameLabels(
        index=np.arange(len(progress)),
        episode_index=episode_index,
        task_index=task_index.astype(np.int64),
        progress=progress,
        log_prob=np.where(labelled, 4 * progress - 5, 0).astype(np.float32),
        labelled=labelled,
        prefix_end=None if prefixes is None else np.isin(np.arange(len(progress)), prefixes),
        tasks={0: "pick", 1: "place"},
        fps=fps,
    )


@pytest.fixture
def labels() -> FrameLabels:
    return labels_of([0, 0.2, 0.5, 1], [0.1, 0.1, 0.1, 0], [0, 0.3, 0.4, 0.9, 1], tasks=[0, 0, 1])


def test_awr_of_a_dataset_has_mean_one(labels: FrameLabels) -> None:
    result = weigh(labels, WeightingConfig(beta=0.5, w_max=3.0), horizon=2)
    gain = schemes.chunk_gain(labels.progress, episode_bounds(labels), horizon=2)
    raw = schemes.awr(gain, beta=0.5, w_min=0.0, w_max=3.0)
    np.testing.assert_array_equal(result.raw, raw)
    np.testing.assert_allclose(result.weight, raw / raw.mean(), rtol=1e-6)
    np.testing.assert_array_equal(result.capped, raw == 3)
    assert result.capped.any()
    np.testing.assert_array_equal(result.index, labels.index)
    assert result.weight.dtype == result.raw.dtype == np.float32


def test_awr_per_task_gives_every_task_its_own_mean(labels: FrameLabels) -> None:
    result = weigh(labels, WeightingConfig(per="task"), horizon=1)
    gain = schemes.chunk_gain(labels.progress, episode_bounds(labels), horizon=1)
    for task in (0, 1):
        rows = labels.task_index == task
        alone = schemes.awr(gain[rows], beta=0.5, w_min=0.0, w_max=20.0)
        np.testing.assert_allclose(result.raw[rows], alone, rtol=1e-6)


def test_a_run_ends_with_the_episode_the_task_and_a_gap_in_the_index() -> None:
    labels = labels_of([0, 0.1, 0.2, 0.3, 0.4], [0, 1])
    labels = replace(
        labels,
        index=np.array([0, 1, 2, 5, 6, 7, 8]),
        task_index=np.array([0, 1, 1, 1, 1, 1, 1]),
    )
    assert run_bounds(labels).tolist() == [[0, 1], [1, 3], [3, 5], [5, 7]]
    assert episode_bounds(labels).tolist() == [[0, 5], [5, 7]]


def test_the_horizon_in_seconds_overrides_the_action_chunk(labels: FrameLabels) -> None:
    seconds = weigh(labels, WeightingConfig(horizon=0.2), horizon=100)
    chunk = weigh(labels, WeightingConfig(), horizon=2)
    np.testing.assert_array_equal(seconds.weight, chunk.weight)
    assert not np.array_equal(chunk.weight, weigh(labels, WeightingConfig(), horizon=100).weight)


@pytest.mark.parametrize("option", ["horizon", "span"])
def test_a_span_below_one_frame_is_refused(labels: FrameLabels, option: str) -> None:
    options: dict[str, Any] = {option: 0.01}
    config = WeightingConfig(scheme="top-awr" if option == "span" else "awr", **options)
    with pytest.raises(
        UserError, match=rf"weighting.{option} must be at least one frame, 0.1 s at 10 fps"
    ):
        weigh(labels, config, horizon=5)


@pytest.mark.parametrize(("span", "horizon"), [("chunk", 3), (0.3, 1)])
def test_the_span_of_top_awr_is_the_chunk_or_seconds(
    labels: FrameLabels, span: Any, horizon: int
) -> None:
    config = WeightingConfig(scheme="top-awr", span=span, centre="none", tau=1.0)
    gain = schemes.chunk_gain(labels.progress, episode_bounds(labels), horizon=3)
    expected = np.clip(np.exp(gain), 0, 2)
    np.testing.assert_allclose(weigh(labels, config, horizon=horizon).raw, expected, rtol=1e-6)


def test_the_papers_weights_are_equation_three_between_prefixes() -> None:
    labels = labels_of([0, 0.25, 0.5, 0.75, 1], [0, 0.5, 1, 0.5], prefixes=[0, 4, 5, 7, 8])
    config = WeightingConfig(scheme="top-awr", span="prefix", centre="none")
    raw = weigh(labels, config, horizon=50).raw
    # The last interval of the second episode loses half: 2 exp(-0.5).
    np.testing.assert_allclose(raw, [2] * 7 + [2 * np.exp(-0.5)] * 2, rtol=1e-6)
    centred = weigh(labels, replace(config, centre="increment"), horizon=50)
    increment = np.array([1.0] * 7 + [-0.5] * 2)
    expected = np.clip(2 * np.exp(increment - increment.mean()), 0, 2)
    np.testing.assert_allclose(centred.raw, expected, rtol=1e-6)
    np.testing.assert_array_equal(centred.capped, expected == 2)


@pytest.mark.parametrize("prefixes", [None, [0, 3, 4]])
def test_a_span_of_prefixes_needs_the_raw_scores(prefixes: list[int] | None) -> None:
    labels = labels_of([0, 0.5, 0.7, 1], [0, 1], [0, 1], prefixes=prefixes)
    with pytest.raises(UserError, match=r"must know which prefixes were scored.*span=chunk"):
        weigh(labels, WeightingConfig(scheme="top-awr", span="prefix"), horizon=1)


def test_rabc_stays_raw_for_the_batch_and_crosses_tasks(labels: FrameLabels) -> None:
    mixed = replace(labels, task_index=labels.index % 2)
    result = weigh(mixed, WeightingConfig(scheme="rabc"), horizon=2)
    gain = schemes.chunk_gain(
        labels.progress.astype(np.float64), episode_bounds(labels), horizon=2, tail="shrink"
    )
    raw = schemes.rabc(gain, kappa=0.01, epsilon=1e-6)
    np.testing.assert_array_equal(result.raw, raw)
    np.testing.assert_array_equal(result.weight, raw)
    np.testing.assert_array_equal(result.capped, raw == 1)
    scaled = weigh(mixed, WeightingConfig(scheme="rabc", normalize="dataset"), horizon=2)
    np.testing.assert_allclose(scaled.weight, raw / raw.mean(), rtol=1e-6)


def test_any_scheme_can_be_normalised_per_batch(labels: FrameLabels) -> None:
    result = weigh(labels, WeightingConfig(normalize="batch"), horizon=2)
    np.testing.assert_array_equal(result.weight, result.raw)
    assert result.weight.mean() != pytest.approx(1)


def test_a_filter_by_success_keeps_whole_episodes(labels: FrameLabels) -> None:
    keep = WeightingConfig(scheme="filter", quantile=0.5)
    result = weigh(replace(labels, fps=1.0), keep, horizon=2)
    assert result.raw.tolist() == [1] * 4 + [0] * 4 + [1] * 5
    np.testing.assert_allclose(result.weight, result.raw * 13 / 9, rtol=1e-6)
    assert not result.capped.any()
    keep = WeightingConfig(scheme="filter", threshold=-3.0)
    above = weigh(replace(labels, fps=1.0), keep, horizon=2)
    np.testing.assert_array_equal(above.raw, result.raw)


def test_success_is_judged_by_the_last_three_prefixes() -> None:
    progress = [0.9, 0, 0.9, 0.9, 0.9, 0]  # ends badly, but was scored at 0, 2, 3 and 4 only
    labels = labels_of(progress, [0.5] * 6, prefixes=[0, 2, 3, 4, 6, 11], fps=1.0)
    config = WeightingConfig(scheme="filter", quantile=1.0)
    assert weigh(labels, config, horizon=1).raw.tolist() == [1] * 6 + [0] * 6
    unknown = replace(labels, prefix_end=None)
    assert weigh(unknown, config, horizon=1).raw.tolist() == [0] * 6 + [1] * 6


def test_a_filter_by_advantage_keeps_frames(labels: FrameLabels) -> None:
    config = WeightingConfig(scheme="filter", by="advantage", threshold=0.25)
    result = weigh(labels, config, horizon=1)
    assert result.raw.tolist() == [0, 1, 1, 1] + [0] * 4 + [1, 0, 1, 0, 0]


def test_uniform_needs_no_label() -> None:
    labels = labels_of([0, 1], [0, 1], unlabelled=[0, 1])
    assert weigh(labels, WeightingConfig(scheme="uniform"), horizon=1).weight.tolist() == [1] * 4


def test_missing_labels_are_counted() -> None:
    labels = labels_of([0, 1, 1], [0, 1], [0, 0.2], unlabelled=[0, 2])
    with pytest.raises(UserError, match=r"5 of 7 frames.*2 of 3 episodes \(0, 2\)") as caught:
        weigh(labels, WeightingConfig(), horizon=1)
    for cure in ("lerobot-topreward label", "--dataset.episodes", "--weighting.unlabelled_weight"):
        assert cure in str(caught.value)


def test_many_episodes_without_labels_are_not_all_named() -> None:
    labels = labels_of(*[[0, 1]] * 20, unlabelled=range(1, 20))
    with pytest.raises(UserError, match=r"19 of 20 episodes \(1, 2, 3, 4, 5, 6, 7, 8, \.\.\.\)"):
        weigh(labels, WeightingConfig(), horizon=1)


@pytest.mark.parametrize("unlabelled_weight", [None, 1.0])
def test_a_dataset_without_any_label_is_refused(unlabelled_weight: float | None) -> None:
    labels = labels_of([0, 1, 1], unlabelled=[0])
    with pytest.raises(UserError, match="none of the 3 frames has a reward label; run"):
        weigh(labels, WeightingConfig(unlabelled_weight=unlabelled_weight), horizon=1)


@pytest.mark.parametrize("scheme", ["awr", "rabc", "uniform"])
@pytest.mark.parametrize("unlabelled_weight", [0.0, 0.5, 1.0])
def test_unlabelled_frames_weigh_a_part_of_the_average(
    scheme: Any, unlabelled_weight: float
) -> None:
    episodes = [0, 0.2, 0.5, 1], [0, 0.1, 0.1], [0.2, 0.4, 0.3]
    labels = labels_of(*episodes, unlabelled=[1])
    config = WeightingConfig(scheme=scheme, unlabelled_weight=unlabelled_weight)
    result = weigh(labels, config, horizon=2)
    rows = labels.labelled
    alone = weigh(labels_of(episodes[0], episodes[2]), WeightingConfig(scheme=scheme), horizon=2)
    np.testing.assert_array_equal(result.raw[rows], alone.raw)
    assert set((result.weight[~rows] / result.weight[rows].mean()).round(6).tolist()) == {
        unlabelled_weight
    }
    if config.normalization == "dataset":
        assert result.weight.mean() == pytest.approx(1)
    assert not result.capped[~rows].any()


def test_weights_that_are_all_zero_are_refused() -> None:
    labels = labels_of([1, 0.5, 0], [0.4, 0.2])
    with pytest.raises(UserError, match=r"scheme=rabc all 5 frames weigh nothing.*horizon"):
        weigh(labels, WeightingConfig(scheme="rabc", tail="slide"), horizon=1)
    config = WeightingConfig(scheme="filter", threshold=-0.5)
    with pytest.raises(UserError, match=r"weigh nothing.*lower --weighting.threshold"):
        weigh(labels, config, horizon=1)


def test_labels_that_are_not_finite_are_refused(labels: FrameLabels) -> None:
    progress = labels.progress.copy()
    progress[6] = np.nan
    with pytest.raises(ValueError, match=r"progress must be finite.*nan on frame 6 of episode 1"):
        weigh(replace(labels, progress=progress), WeightingConfig(), horizon=1)
    log_prob = labels.log_prob.copy()
    log_prob[2] = -np.inf
    with pytest.raises(ValueError, match="log_prob must be finite"):
        weigh(replace(labels, log_prob=log_prob), WeightingConfig(), horizon=1)


def test_frames_out_of_order_are_refused(labels: FrameLabels) -> None:
    with pytest.raises(ValueError, match="order of their index"):
        weigh(replace(labels, index=labels.index[::-1]), WeightingConfig(), horizon=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, r"--weighting.beta must be > 0; got -1"),
        ({"beta": "fast"}, r"--weighting.beta must be a finite number; got 'fast'"),
        ({"beta": None}, r"--weighting.beta must be a finite number; got nothing"),
        ({"beta": True}, r"--weighting.beta must be a finite number; got True"),
        ({"beta": float("nan")}, r"--weighting.beta must be a finite number; got nan"),
        ({"w_max": float("inf")}, r"--weighting.w_max must be a finite number; got inf"),
        ({"w_min": -0.1}, r"--weighting.w_min must be >= 0; got -0.1"),
        ({"w_min": 30}, r"w_min must be <= --weighting.w_max; got 30.0 > 20.0"),
        ({"scheme": "arw"}, r"awr, top-awr, .* or uniform; got 'arw'. Did you mean awr\?"),
        ({"scheme": "top_awr"}, r"got 'top_awr'. Did you mean top-awr\?"),
        ({"scheme": None}, r"--weighting.scheme must be awr, .*; got nothing"),
        ({"per": "tasks"}, r"--weighting.per must be dataset or task; got 'tasks'. Did you"),
        ({"normalize": "batches"}, r"dataset or batch; got 'batches'. Did you mean batch\?"),
        ({"source": "sidecars"}, r"--weighting.source must be auto, columns or sidecar"),
        ({"scheme": "top-awr", "span": "prefixes"}, r"prefix, chunk or a finite number; got .*Did"),
        ({"scheme": "top-awr", "span": 0}, r"--weighting.span must be > 0; got 0"),
        ({"scheme": "top-awr", "span": 1, "horizon": 1}, r"both give the span of top-awr"),
        ({"scheme": "top-awr", "centre": "mean"}, r"none, increment or weight; got 'mean'"),
        ({"scheme": "top-awr", "tau": 0}, r"--weighting.tau must be > 0; got 0"),
        ({"scheme": "top-awr", "delta_max": -2}, r"--weighting.delta_max must be > 0; got -2"),
        ({"scheme": "rabc", "kappa": 2}, r"--weighting.kappa must be 0..1; got 2"),
        ({"scheme": "rabc", "epsilon": 0}, r"--weighting.epsilon must be > 0; got 0"),
        (
            {"scheme": "rabc", "tail": "slides"},
            r"shrink or slide; got 'slides'. Did you mean slide\?",
        ),
        ({"scheme": "rabc", "beta": 1}, r"beta is an option of awr, not of rabc; leave it at 0.5"),
        ({"quantile": 0.5}, r"quantile is an option of filter, not of awr; leave it at unset"),
        ({"scheme": "uniform", "horizon": 1}, r"awr and top-awr and rabc and filter, not of unif"),
        ({"scheme": "filter"}, r"must have one of .*threshold and .*quantile; got neither"),
        ({"scheme": "filter", "threshold": -1, "quantile": 0.5}, r"quantile; got both"),
        ({"scheme": "filter", "quantile": 1.5}, r"--weighting.quantile must be 0..1; got 1.5"),
        ({"scheme": "filter", "threshold": 0.2}, r"must be <= 0 with --weighting.by=success"),
        ({"scheme": "filter", "by": "advantage", "threshold": 2}, r"must be -1..1 with"),
        ({"scheme": "filter", "quantile": 0.5, "horizon": 1}, r"by=success does not use"),
        ({"horizon": 0}, r"--weighting.horizon must be > 0; got 0"),
        ({"unlabelled_weight": -1}, r"--weighting.unlabelled_weight must be >= 0; got -1"),
        ({"source": "columns", "sidecar": "x.parquet"}, r"x.parquet is not read with"),
        ({"bta": 1.0}, r"--weighting.bta is no option; did you mean --weighting.beta\?"),
    ],
)
def test_options_that_break_a_rule_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_params(options)


def test_numbers_may_come_as_yaml_gives_them() -> None:
    config = from_params({"scheme": "rabc", "epsilon": "1e-8", "kappa": 0, "sidecar": "a/b"})
    assert (config.epsilon, config.kappa, config.sidecar) == (1e-8, 0.0, Path("a/b"))
    assert from_params({"scheme": "top-awr", "span": "1.5"}).span == 1.5
    assert from_params({"scheme": "top-awr", "span": 2}).span == 2.0


@pytest.mark.parametrize(
    "config",
    [
        WeightingConfig(),
        WeightingConfig(scheme="top-awr", span=1.5, tau=3.0, sidecar=Path("labels.parquet")),
        WeightingConfig(scheme="filter", by="advantage", threshold=0.1, unlabelled_weight=0.0),
    ],
)
def test_a_configuration_survives_json(config: WeightingConfig) -> None:
    assert from_params(json.loads(json.dumps(as_params(config)))) == config


def test_the_batch_is_the_default_normalisation_of_rabc_only() -> None:
    assert WeightingConfig(scheme="rabc").normalization == "batch"
    assert WeightingConfig().normalization == "dataset"
    assert WeightingConfig(normalize="batch").normalization == "batch"

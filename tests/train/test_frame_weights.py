import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frame_labels import labels_of

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import WeightingConfig, as_params, from_params
from lerobot_topreward.train.frame_weights import scale_to_mean_one, weigh
from lerobot_topreward.train.records import FrameLabels, progress_gain
from lerobot_topreward.train.schemes import Awr, Filter, Rabc, Scheme, TopAwr, Uniform


@pytest.fixture
def labels() -> FrameLabels:
    return labels_of([0, 0.2, 0.5, 1], [0.1, 0.1, 0.1, 0], [0, 0.3, 0.4, 0.9, 1], tasks=[0, 0, 1])


def test_awr_of_a_dataset_has_mean_one(labels: FrameLabels) -> None:
    result = weigh(labels, WeightingConfig(scheme=Awr(beta=0.5, w_max=3.0)), chunk=2)
    gain = progress_gain(labels, horizon=2).astype(np.float64)
    raw = np.minimum(np.exp((gain - gain.mean()) / gain.std() / 0.5), 3)
    np.testing.assert_allclose(result.raw, raw, rtol=1e-6)
    np.testing.assert_allclose(result.weight, raw / raw.mean(), rtol=1e-6)
    np.testing.assert_array_equal(result.capped, raw == 3)
    assert result.capped.any()
    np.testing.assert_array_equal(result.index, labels.index)
    assert result.weight.dtype == result.raw.dtype == np.float32


def test_awr_per_task_gives_every_task_its_own_mean(labels: FrameLabels) -> None:
    result = weigh(labels, WeightingConfig(scheme=Awr(per="task")), chunk=1)
    for task in (0, 1):
        rows = labels.task_index == task
        alone = Awr().weights(labels.select(rows), chunk=1)
        np.testing.assert_allclose(result.raw[rows], alone, rtol=1e-6)


def test_a_run_ends_with_the_episode_the_task_and_a_gap_in_the_index() -> None:
    labels = labels_of([0, 0.1, 0.2, 0.3, 0.4], [0, 1])
    labels = replace(
        labels,
        index=np.array([0, 1, 2, 5, 6, 7, 8]),
        task_index=np.array([0, 1, 1, 1, 1, 1, 1]),
    )
    assert labels.runs() == [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 7)]
    assert labels.episodes() == [slice(0, 5), slice(5, 7)]


def test_the_horizon_in_seconds_overrides_the_action_chunk(labels: FrameLabels) -> None:
    seconds = weigh(labels, WeightingConfig(scheme=Awr(horizon=0.2)), chunk=100)
    chunk = weigh(labels, WeightingConfig(), chunk=2)
    np.testing.assert_array_equal(seconds.weight, chunk.weight)
    assert not np.array_equal(chunk.weight, weigh(labels, WeightingConfig(), chunk=100).weight)


@pytest.mark.parametrize(
    ("option", "scheme"), [("horizon", Awr(horizon=0.01)), ("span", TopAwr(span=0.01))]
)
def test_a_span_below_one_frame_is_refused(
    labels: FrameLabels, option: str, scheme: Scheme
) -> None:
    with pytest.raises(
        UserError, match=rf"`weighting.{option}` must be at least one frame, 0.1 s at 10 fps"
    ):
        weigh(labels, WeightingConfig(scheme=scheme), chunk=5)


@pytest.mark.parametrize(("span", "chunk"), [("chunk", 3), (0.3, 1)])
def test_the_span_of_top_awr_is_the_chunk_or_seconds(
    labels: FrameLabels, span: Any, chunk: int
) -> None:
    config = WeightingConfig(scheme=TopAwr(span=span, tau=1.0))
    gain = progress_gain(labels, horizon=3).astype(np.float64)
    expected = np.clip(np.exp(gain - gain.mean()), 0, 2)
    np.testing.assert_allclose(weigh(labels, config, chunk=chunk).raw, expected, rtol=1e-6)


def test_the_papers_weights_are_equation_three_between_prefixes() -> None:
    labels = labels_of([0, 0.25, 0.5, 0.75, 1], [0, 0.5, 1, 0.5], prefixes=[0, 4, 5, 7, 8])
    result = weigh(labels, WeightingConfig(scheme=TopAwr(span="prefix")), chunk=50)
    # The last interval of the second episode loses half.
    increment = np.array([1.0] * 7 + [-0.5] * 2)
    expected = np.clip(2 * np.exp(increment - increment.mean()), 0, 2)
    np.testing.assert_allclose(result.raw, expected, rtol=1e-6)
    np.testing.assert_array_equal(result.capped, expected == 2)
    # As printed, the mean is not subtracted: 2 exp(-0.5) for the last frames.
    tau = 2 * float(np.exp(increment.mean()))
    raw = weigh(labels, WeightingConfig(scheme=TopAwr(span="prefix", tau=tau)), chunk=50).raw
    np.testing.assert_allclose(raw, [2] * 7 + [2 * np.exp(-0.5)] * 2, rtol=1e-6)


@pytest.mark.parametrize("prefixes", [None, [0, 3, 4]])
def test_a_span_of_prefixes_needs_the_raw_scores(prefixes: list[int] | None) -> None:
    labels = labels_of([0, 0.5, 0.7, 1], [0, 1], [0, 1], prefixes=prefixes)
    with pytest.raises(UserError, match=r"must know which prefixes were scored.*span=chunk"):
        weigh(labels, WeightingConfig(scheme=TopAwr(span="prefix")), chunk=1)


def test_rabc_stays_raw_for_the_batch_and_crosses_tasks(labels: FrameLabels) -> None:
    mixed = replace(labels, task_index=labels.index % 2)
    result = weigh(mixed, WeightingConfig(scheme=Rabc()), chunk=2)
    raw = Rabc().weights(labels, chunk=2)
    np.testing.assert_array_equal(result.raw, raw)
    np.testing.assert_array_equal(result.weight, raw)
    np.testing.assert_array_equal(result.capped, raw == 1)
    scaled = weigh(mixed, WeightingConfig(scheme=Rabc(), normalize="dataset"), chunk=2)
    np.testing.assert_allclose(scaled.weight, raw / raw.mean(), rtol=1e-6)


def test_any_scheme_can_be_normalised_per_batch(labels: FrameLabels) -> None:
    result = weigh(labels, WeightingConfig(normalize="batch"), chunk=2)
    np.testing.assert_array_equal(result.weight, result.raw)
    assert result.weight.mean() != pytest.approx(1)


def test_a_filter_by_success_keeps_whole_episodes(labels: FrameLabels) -> None:
    keep = WeightingConfig(scheme=Filter(quantile=0.5))
    result = weigh(replace(labels, fps=1.0), keep, chunk=2)
    assert result.raw.tolist() == [1] * 4 + [0] * 4 + [1] * 5
    np.testing.assert_allclose(result.weight, result.raw * 13 / 9, rtol=1e-6)
    assert not result.capped.any()
    keep = WeightingConfig(scheme=Filter(threshold=-3.0))
    above = weigh(replace(labels, fps=1.0), keep, chunk=2)
    np.testing.assert_array_equal(above.raw, result.raw)


def test_success_is_judged_by_the_last_three_prefixes() -> None:
    progress = [0.9, 0, 0.9, 0.9, 0.9, 0]  # ends badly, but was scored at 0, 2, 3 and 4 only
    labels = labels_of(progress, [0.5] * 6, prefixes=[0, 2, 3, 4, 6, 11], fps=1.0)
    config = WeightingConfig(scheme=Filter(quantile=1.0))
    assert weigh(labels, config, chunk=1).raw.tolist() == [1] * 6 + [0] * 6
    unknown = replace(labels, prefix_end=None)
    assert weigh(unknown, config, chunk=1).raw.tolist() == [0] * 6 + [1] * 6


def test_a_filter_by_advantage_keeps_frames(labels: FrameLabels) -> None:
    config = WeightingConfig(scheme=Filter(by="advantage", threshold=0.25))
    result = weigh(labels, config, chunk=1)
    assert result.raw.tolist() == [0, 1, 1, 1] + [0] * 4 + [1, 0, 1, 0, 0]


def test_uniform_needs_no_label() -> None:
    labels = labels_of([0, 1], [0, 1], unlabelled=[0, 1])
    assert weigh(labels, WeightingConfig(scheme=Uniform()), chunk=1).weight.tolist() == [1] * 4


def test_missing_labels_are_counted() -> None:
    labels = labels_of([0, 1, 1], [0, 1], [0, 0.2], unlabelled=[0, 2])
    with pytest.raises(UserError, match=r"5 of 7 frames.*2 of 3 episodes \(0, 2\)") as caught:
        weigh(labels, WeightingConfig(), chunk=1)
    for fix in ("lerobot-topreward label", "`weighting.unlabelled_weight=0`"):
        assert fix in str(caught.value)


def test_many_episodes_without_labels_are_not_all_named() -> None:
    labels = labels_of(*[[0, 1]] * 20, unlabelled=range(1, 20))
    with pytest.raises(UserError, match=r"19 of 20 episodes \(1, 2, 3, 4, 5, 6, 7, 8, \.\.\.\)"):
        weigh(labels, WeightingConfig(), chunk=1)


@pytest.mark.parametrize("unlabelled_weight", [None, 1.0])
def test_a_dataset_without_any_label_is_refused(unlabelled_weight: float | None) -> None:
    labels = labels_of([0, 1, 1], unlabelled=[0])
    with pytest.raises(UserError, match="none of the 3 frames has a reward label; run"):
        weigh(labels, WeightingConfig(unlabelled_weight=unlabelled_weight), chunk=1)


@pytest.mark.parametrize("scheme", [Awr(), Rabc(), Uniform()], ids=lambda s: s.name)
@pytest.mark.parametrize("unlabelled_weight", [0.0, 0.5, 1.0])
def test_unlabelled_frames_weigh_a_part_of_the_average(
    scheme: Scheme, unlabelled_weight: float
) -> None:
    episodes = [0, 0.2, 0.5, 1], [0, 0.1, 0.1], [0.2, 0.4, 0.3]
    labels = labels_of(*episodes, unlabelled=[1])
    config = WeightingConfig(scheme=scheme, unlabelled_weight=unlabelled_weight)
    result = weigh(labels, config, chunk=2)
    rows = labels.labelled
    alone = weigh(labels_of(episodes[0], episodes[2]), WeightingConfig(scheme=scheme), chunk=2)
    np.testing.assert_array_equal(result.raw[rows], alone.raw)
    assert set((result.weight[~rows] / result.weight[rows].mean()).round(6).tolist()) == {
        unlabelled_weight
    }
    if config.normalization == "dataset":
        assert result.weight.mean() == pytest.approx(1)
    assert not result.capped[~rows].any()


def test_weights_that_are_all_zero_are_refused() -> None:
    labels = labels_of([1, 0.5, 0], [0.4, 0.2])
    with pytest.raises(UserError, match=r"scheme=top-awr` all 5 frames weigh nothing.*raise .*tau"):
        weigh(labels, WeightingConfig(scheme=TopAwr(tau=1e-60)), chunk=1)
    config = WeightingConfig(scheme=Filter(threshold=-0.5))
    with pytest.raises(UserError, match=r"weigh nothing.*lower `weighting.threshold`"):
        weigh(labels, config, chunk=1)


def test_labels_that_are_not_finite_are_refused(labels: FrameLabels) -> None:
    progress = labels.progress.copy()
    progress[6] = np.nan
    with pytest.raises(ValueError, match=r"progress must be finite.*nan on frame 6 of episode 1"):
        weigh(replace(labels, progress=progress), WeightingConfig(), chunk=1)
    log_prob = labels.log_prob.copy()
    log_prob[2] = -np.inf
    with pytest.raises(ValueError, match="log_prob must be finite"):
        weigh(replace(labels, log_prob=log_prob), WeightingConfig(), chunk=1)


def test_frames_out_of_order_are_refused(labels: FrameLabels) -> None:
    with pytest.raises(ValueError, match="order of their index"):
        weigh(replace(labels, index=labels.index[::-1]), WeightingConfig(), chunk=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, r"`weighting.beta` must be > 0; got -1"),
        ({"beta": "fast"}, r"weighting.beta must be a finite number; got 'fast'"),
        ({"beta": None}, r"weighting.beta must be a finite number; got nothing"),
        ({"beta": True}, r"weighting.beta must be a finite number; got True"),
        ({"beta": float("nan")}, r"weighting.beta must be a finite number; got nan"),
        ({"w_max": float("inf")}, r"weighting.w_max must be a finite number; got inf"),
        ({"w_min": -0.1}, r"`weighting.w_min` must be >= 0; got -0.1"),
        ({"w_min": 30}, r"w_min` must be <= `weighting.w_max`; got 30.0 > 20.0"),
        ({"scheme": "arw"}, r"awr, top-awr, .* or uniform; got 'arw'. Did you mean awr\?"),
        ({"scheme": "top_awr"}, r"got 'top_awr'. Did you mean top-awr\?"),
        ({"scheme": None}, r"weighting.scheme must be awr, .*; got nothing"),
        ({"per": "tasks"}, r"weighting.per must be dataset or task; got 'tasks'. Did you"),
        ({"normalize": "batches"}, r"dataset or batch; got 'batches'. Did you mean batch\?"),
        ({"source": "sidecars"}, r"weighting.source must be auto, columns or sidecar"),
        ({"scheme": "top-awr", "span": "prefixes"}, r"prefix, chunk or a finite number; got .*Did"),
        ({"scheme": "top-awr", "span": 0}, r"`weighting.span` must be > 0; got 0"),
        ({"scheme": "top-awr", "span": 1, "horizon": 1}, r"both give the span of top-awr"),
        ({"scheme": "top-awr", "centre": "weight"}, r"weighting.centre is no option"),
        ({"scheme": "top-awr", "tau": 0}, r"`weighting.tau` must be > 0; got 0"),
        ({"scheme": "top-awr", "delta_max": -2}, r"`weighting.delta_max` must be > 0; got -2"),
        ({"scheme": "rabc", "kappa": 2}, r"`weighting.kappa` must be 0..1; got 2"),
        ({"scheme": "rabc", "epsilon": 0}, r"`weighting.epsilon` must be > 0; got 0"),
        ({"scheme": "rabc", "tail": "slide"}, r"weighting.tail is no option"),
        ({"scheme": "rabc", "beta": 1}, r"beta` is an option of awr, not of rabc; leave it at 0.5"),
        ({"quantile": 0.5}, r"quantile` is an option of filter, not of awr; leave it at unset"),
        ({"scheme": "uniform", "horizon": 1}, r"awr and top-awr and rabc and filter, not of unif"),
        ({"scheme": "filter"}, r"must have one of .*threshold` and .*quantile`; got neither"),
        ({"scheme": "filter", "threshold": -1, "quantile": 0.5}, r"quantile`; got both"),
        ({"scheme": "filter", "quantile": 1.5}, r"`weighting.quantile` must be 0..1; got 1.5"),
        ({"scheme": "filter", "threshold": 0.2}, r"must be <= 0 with `weighting.by=success`"),
        ({"scheme": "filter", "by": "advantage", "threshold": 2}, r"must be -1..1 with"),
        ({"scheme": "filter", "quantile": 0.5, "horizon": 1}, r"by=success` does not use"),
        ({"horizon": 0}, r"`weighting.horizon` must be > 0; got 0"),
        ({"unlabelled_weight": -1}, r"`weighting.unlabelled_weight` must be >= 0; got -1"),
        ({"source": "columns", "sidecar": "x.parquet"}, r"x.parquet` is not read with"),
        ({"bta": 1.0}, r"weighting.bta is no option; did you mean weighting.beta\?"),
    ],
)
def test_options_that_break_a_rule_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_params(options)


def test_numbers_may_come_as_yaml_gives_them() -> None:
    config = from_params({"scheme": "rabc", "epsilon": "1e-8", "kappa": 0, "sidecar": "a/b"})
    assert config == WeightingConfig(scheme=Rabc(epsilon=1e-8, kappa=0.0), sidecar=Path("a/b"))
    assert from_params({"scheme": "top-awr", "span": "1.5"}).scheme == TopAwr(span=1.5)
    assert from_params({"scheme": "top-awr", "span": 2}).scheme == TopAwr(span=2.0)


@pytest.mark.parametrize(
    "config",
    [
        WeightingConfig(),
        WeightingConfig(scheme=TopAwr(span=1.5, tau=3.0), sidecar=Path("labels.parquet")),
        WeightingConfig(scheme=Filter(by="advantage", threshold=0.1), unlabelled_weight=0.0),
    ],
)
def test_a_configuration_survives_json(config: WeightingConfig) -> None:
    assert from_params(json.loads(json.dumps(as_params(config)))) == config


def test_checkpoints_of_earlier_versions_hold_the_options_of_every_scheme() -> None:
    params = {
        **{"scheme": "rabc", "horizon": None, "normalize": None, "unlabelled_weight": 0.5},
        **{"source": "auto", "sidecar": None, "beta": 0.5, "w_min": 0.0, "w_max": 20.0},
        **{"per": "dataset", "tau": 2.0, "delta_max": 2.0, "span": "chunk", "centre": "increment"},
        **{"kappa": 0.2, "epsilon": 1e-6, "tail": "shrink", "by": "success", "threshold": None},
        **{"quantile": None},
    }
    assert from_params(params) == WeightingConfig(scheme=Rabc(kappa=0.2), unlabelled_weight=0.5)


def test_weights_are_scaled_to_a_mean_of_one() -> None:
    scaled = scale_to_mean_one(np.array([0, 1, 2, 5], dtype=np.float32))
    assert scaled.tolist() == [0, 0.5, 1, 2.5]
    assert scaled.dtype == np.float32
    with pytest.raises(ValueError, match="mean of the weights must be > 0"):
        scale_to_mean_one(np.zeros(3))


def test_the_batch_is_the_default_normalisation_of_rabc_only() -> None:
    assert WeightingConfig(scheme=Rabc()).normalization == "batch"
    assert WeightingConfig().normalization == "dataset"
    assert WeightingConfig(normalize="batch").normalization == "batch"

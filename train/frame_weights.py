"""The weight of every frame that is trained on, from its labels and the configuration."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lerobot_topreward.errors import UserError
from lerobot_topreward.train import schemes
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.records import FrameLabels, FrameWeights

_LISTED = 8  # episodes named in an error


def weigh(labels: FrameLabels, config: WeightingConfig, *, horizon: int) -> FrameWeights:
    """Weigh the frames that are trained on by their labelled rewards.

    All statistics are taken over the labelled frames of `labels`, and only those. A frame without
    a label weighs `config.unlabelled_weight` times as much as the average labelled one.

    Args:
        labels: of every frame that is trained on.
        config: the scheme and its options.
        horizon: the policy's action chunk, frames, >= 1; `config.horizon` overrides it.

    Returns:
        The weights: with mean 1 over all frames, or raw where they are normalised per batch.

    Raises:
        UserError: frames have no label and no weight is given for them, all weights are zero, or
            the scheme needs prefixes or frames that the labels do not have.
        ValueError: a label or a weight is not finite, the frames are not in order, or
            horizon < 1.
    """
    _check_labels(labels)
    if config.scheme == "uniform" and config.unlabelled_weight is None:
        labels = replace(labels, labelled=np.ones_like(labels.labelled))
    _check_labelled(labels, config)
    labelled = labels.labelled
    known, capped = _raw_weights(
        labels if labelled.all() else _select(labels, labelled), config, horizon=horizon
    )
    raw = np.full(len(labelled), _unlabelled(known, config), dtype=np.float32)
    raw[labelled] = known
    if not np.isfinite(raw).all():
        bad = labels.index[~np.isfinite(raw)][0]
        raise ValueError(f"every weight must be finite; that of frame {bad} is not")
    if not raw.any():
        raise UserError(
            f"with --weighting.scheme={config.scheme} all {len(raw)} frames weigh nothing, so "
            f"nothing would be learned; {_ZERO_CURES[config.scheme]}"
        )
    everywhere = np.zeros(len(labelled), dtype=np.bool_)
    everywhere[labelled] = capped
    weight = raw if config.normalization == "batch" else schemes.mean_one(raw)
    return FrameWeights(index=labels.index, raw=raw, weight=weight, capped=everywhere)


_ZERO_CURES = {
    "awr": "raise --weighting.beta or --weighting.w_min",
    "top-awr": "use --weighting.centre=increment, or lengthen --weighting.span",
    "rabc": "no progress is gained over an action chunk: give a longer --weighting.horizon",
    "filter": "lower --weighting.threshold, or give --weighting.quantile instead",
    "uniform": "raise --weighting.unlabelled_weight",
}


def _check_labels(labels: FrameLabels) -> None:
    if len(labels.index) == 0:
        raise ValueError("there must be a frame to weigh")
    if not (np.diff(labels.index) > 0).all():
        raise ValueError("the frames must be in the order of their index, each of them once")
    for name in ("progress", "log_prob"):
        values = getattr(labels, name)
        bad = np.flatnonzero(~np.isfinite(values) & labels.labelled)
        if len(bad):
            raise ValueError(
                f"{name} must be finite on every labelled frame; got {values[bad[0]]} on frame "
                f"{labels.index[bad[0]]} of episode {labels.episode_index[bad[0]]}"
            )


def _check_labelled(labels: FrameLabels, config: WeightingConfig) -> None:
    missing = ~labels.labelled
    if missing.all():
        raise UserError(
            f"none of the {len(missing)} frames has a reward label; run `lerobot-topreward label` "
            "on this dataset first"
        )
    if missing.any() and config.unlabelled_weight is None:
        episodes = np.unique(labels.episode_index[missing])
        total = len(np.unique(labels.episode_index))
        raise UserError(
            f"every frame must have a reward label; {missing.sum()} of {len(missing)} frames have "
            f"none, in {len(episodes)} of {total} episodes ({_listed(episodes)}). Run "
            "`lerobot-topreward label` again, leave these out with --dataset.episodes, or give "
            "them a --weighting.unlabelled_weight (1 weighs as much as the average of the others)"
        )


def _listed(episodes: Int64[np.ndarray, " episodes"]) -> str:
    named = ", ".join(str(episode) for episode in episodes[:_LISTED])
    return named if len(episodes) <= _LISTED else f"{named}, ..."


def _select(labels: FrameLabels, rows: Bool[np.ndarray, " frames"]) -> FrameLabels:
    return replace(
        labels,
        index=labels.index[rows],
        episode_index=labels.episode_index[rows],
        task_index=labels.task_index[rows],
        progress=labels.progress[rows],
        log_prob=labels.log_prob[rows],
        labelled=labels.labelled[rows],
        prefix_end=None if labels.prefix_end is None else labels.prefix_end[rows],
    )


def _unlabelled(
    known: Float32[np.ndarray, " labelled"], config: WeightingConfig
) -> np.float32 | float:
    return (config.unlabelled_weight or 0.0) * float(np.mean(known, dtype=np.float64))


def _raw_weights(
    labels: FrameLabels, config: WeightingConfig, *, horizon: int
) -> tuple[Float32[np.ndarray, " frames"], Bool[np.ndarray, " frames"]]:
    """The formula's own weights of labelled frames, and where it reached its upper limit."""
    if config.horizon is not None:
        horizon = _frames("horizon", config.horizon, fps=labels.fps)
    if config.scheme == "uniform":
        raw, cap = schemes.uniform(len(labels.index)), np.inf
    elif config.scheme == "rabc":
        raw, cap = _rabc(labels, config, horizon=horizon), 1.0
    elif config.scheme == "top-awr":
        raw = schemes.top_awr(
            _increment(labels, config, horizon=horizon),
            tau=config.tau,
            delta_max=config.delta_max,
            centre=config.centre,
        )
        cap = config.delta_max
    elif config.scheme == "filter" and config.by == "success":
        raw, cap = _filter_episodes(labels, config), np.inf
    else:
        advantage = schemes.chunk_gain(labels.progress, run_bounds(labels), horizon=horizon)
        if config.scheme == "filter":
            raw = schemes.filter_weights(
                advantage, threshold=config.threshold, quantile=config.quantile
            )
            cap = np.inf
        else:
            raw = schemes.awr(
                advantage,
                beta=config.beta,
                w_min=config.w_min,
                w_max=config.w_max,
                groups=labels.task_index if config.per == "task" else None,
            )
            cap = config.w_max
    return raw, raw >= np.float32(cap)


def _rabc(
    labels: FrameLabels, config: WeightingConfig, *, horizon: int
) -> Float32[np.ndarray, " frames"]:
    gain = schemes.chunk_gain(
        labels.progress.astype(np.float64),
        episode_bounds(labels),
        horizon=horizon,
        tail=config.tail,
    )
    return schemes.rabc(gain, kappa=config.kappa, epsilon=config.epsilon)


def _increment(
    labels: FrameLabels, config: WeightingConfig, *, horizon: int
) -> Float32[np.ndarray, " frames"]:
    bounds = run_bounds(labels)
    if config.span != "prefix":
        if not isinstance(config.span, str):
            horizon = _frames("span", config.span, fps=labels.fps)
        return schemes.chunk_gain(labels.progress, bounds, horizon=horizon)
    if labels.prefix_end is None:
        raise UserError(
            "--weighting.span=prefix must know which prefixes were scored, which these labels do "
            "not say; label the dataset again, or use --weighting.span=chunk"
        )
    counts = np.add.reduceat(labels.prefix_end.astype(np.int64), bounds[:, 0])
    if (counts == 0).any():
        episodes = np.unique(labels.episode_index[bounds[counts == 0, 0]])
        raise UserError(
            f"--weighting.span=prefix must know which prefixes were scored; the raw scores of "
            f"{len(episodes)} episodes are missing ({_listed(episodes)}). Label the dataset again, "
            "or use --weighting.span=chunk"
        )
    return schemes.prefix_gain(labels.progress, bounds, prefix_end=labels.prefix_end)


def _filter_episodes(
    labels: FrameLabels, config: WeightingConfig
) -> Float32[np.ndarray, " frames"]:
    bounds = episode_bounds(labels)
    return schemes.filter_weights(
        schemes.success_score(
            labels.log_prob,
            bounds,
            prefix_end=labels.prefix_end,
            window=max(1, round(labels.fps)),
        ),
        threshold=config.threshold,
        quantile=config.quantile,
        lengths=bounds[:, 1] - bounds[:, 0],
    )


def _frames(name: str, seconds: float, *, fps: float) -> int:
    frames = round(seconds * fps)
    if frames < 1:
        raise UserError(
            f"--weighting.{name} must be at least one frame, {1 / fps:.3g} s at {fps:g} fps; got "
            f"{seconds:g}"
        )
    return frames


def run_bounds(labels: FrameLabels) -> Int64[np.ndarray, "runs 2"]:
    """[start, stop) rows of the runs: consecutive frames of one episode under one instruction."""
    return _bounds(
        (np.diff(labels.episode_index) != 0)
        | (np.diff(labels.task_index) != 0)
        | (np.diff(labels.index) != 1)
    )


def episode_bounds(labels: FrameLabels) -> Int64[np.ndarray, "episodes 2"]:
    """[start, stop) rows of the episodes."""
    return _bounds(np.diff(labels.episode_index) != 0)


def _bounds(border: Bool[np.ndarray, " between"]) -> Int64[np.ndarray, "runs 2"]:
    edges = np.concatenate([[0], np.flatnonzero(border) + 1, [len(border) + 1]])
    return np.stack([edges[:-1], edges[1:]], axis=1)

"""The weight of every frame that is trained on, from its labels and the configuration."""

import numpy as np
from jaxtyping import Float, Float32

from lerobot_topreward.errors import UserError
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.records import FrameLabels, FrameWeights, list_first
from lerobot_topreward.train.schemes import Uniform
from lerobot_topreward.train.stationary import find_stationary


def weigh(labels: FrameLabels, config: WeightingConfig, *, chunk: int) -> FrameWeights:
    """Weigh the frames that are trained on by their labeled rewards.

    All statistics are taken over the labeled frames of `labels`, and only those. A frame without
    a label weighs `config.unlabelled_weight` times as much as the mean labeled one. The weights
    have mean 1 over all frames, or are raw where they are normalized per batch. With
    ``stationary=drop`` frames that stand still weigh nothing; the others weigh what they would,
    before that mean is taken. `WeightingConfig.settle_by` decides what `config` leaves open.
    `chunk` is the policy's action chunk, frames, >= 1.

    Raises:
        UserError: frames have no label and no weight is given for them, all weights are zero, or
            the scheme needs prefixes or frames that the labels do not have.
        ValueError: a label or a weight is not finite, the frames are not in order, or chunk < 1.
    """
    _check_labels(labels)
    config = config.settle_by(labels)
    known = labels.labelled
    if isinstance(config.scheme, Uniform) and config.unlabelled_weight is None:
        known = np.ones_like(known)  # plain behavior cloning needs no labels
    else:
        _require_labels(labels, config)
    found = config.scheme.weights(labels if known.all() else labels.select(known), chunk=chunk)
    unlabeled = (config.unlabelled_weight or 0.0) * float(np.mean(found, dtype=np.float64))
    raw = np.full(len(known), unlabeled, dtype=np.float32)
    raw[known] = found
    stationary = find_stationary(labels) if config.stationary == "drop" else None
    if not np.isfinite(raw).all():
        bad = labels.index[~np.isfinite(raw)][0]
        raise ValueError(f"every weight must be finite; that of frame {bad} is not")
    if not raw.any():
        raise UserError(
            f"with `weighting.scheme={config.scheme.name}` all {len(raw)} frames weigh nothing, so "
            f"nothing would be learned; {config.scheme.if_all_zero}"
        )
    if stationary is not None:
        raw[stationary] = 0
        if not raw.any():
            raise UserError(
                f"all {len(raw)} frames weigh nothing, so nothing would be learned: "
                f"{int(stationary.sum())} stand still, which `weighting.stationary=drop` leaves out; "
                "use `weighting.stationary=keep`"
            )
    cap = config.scheme.cap
    largest = getattr(config.scheme, cap) if isinstance(cap, str) else cap
    capped = known & (raw >= np.float32(largest))
    weight = raw if config.normalization == "batch" else scale_to_mean_one(raw)
    return FrameWeights(labels.index, raw, weight, capped, stationary)


def scale_to_mean_one(weights: Float[np.ndarray, " frames"]) -> Float32[np.ndarray, " frames"]:
    """Scale weights to a mean of 1, so that they leave the size of the loss as it is.

    Raises:
        ValueError: their mean is not positive and finite.
    """
    mean = float(np.mean(weights, dtype=np.float64))
    if not 0 < mean < float("inf"):
        raise ValueError(f"the mean of the weights must be > 0 and finite; got {mean}")
    return (weights / mean).astype(np.float32)


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
                f"{name} must be finite on every labeled frame; got {values[bad[0]]} on frame "
                f"{labels.index[bad[0]]} of episode {labels.episode_index[bad[0]]}"
            )


def _require_labels(labels: FrameLabels, config: WeightingConfig) -> None:
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
            f"`weighting.unlabelled_weight=0` trains on the labeled frames alone: {missing.sum()} of "
            f"{len(missing)} frames have no reward label, in {len(episodes)} of {total} episodes "
            f"({list_first(episodes)}). With 1 they weigh as much as the average labeled one; "
            "`lerobot-topreward label` labels the rest"
        )

"""The labels of the frames that are trained on, from wherever a dataset keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool

from lerobot_topreward.console import warn
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.recording import open_recorded
from lerobot_topreward.data.success import read_success
from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.judging.judgment import Judgment, judge_labels
from lerobot_topreward.judging.motion import fill_gaps, find_still
from lerobot_topreward.judging.profile import measure_profile
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.rewards import Normalize
from lerobot_topreward.scoring.control_scores import read_controls
from lerobot_topreward.storage.labels import (
    explain_columns,
    explain_edit,
    find_sidecar,
    has_columns,
    label_command,
    lay_out,
    name_frame,
    no_labels,
    read_description,
    read_foreign_sidecar,
    read_label_columns,
)
from lerobot_topreward.storage.reader import read_labelled
from lerobot_topreward.storage.sidecar import SIDECAR_NAME, fingerprint_of, read_sidecar
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.schemes import Filter, Uniform

_NEEDED = ("topreward.progress", "topreward.log_prob", "topreward.labelled")
_COLUMNS = "the columns topreward.*"
_AGREE_TO = 1e-6  # both copies are written from the same float32 values


def read_labels(
    source: Source, *, episodes: Sequence[int] | None, config: WeightingConfig
) -> FrameLabels:
    """Read the labels of the frames that are trained on, those without a label among them.

    They are the frames of these episodes, or of all, in the order of their global index. Uniform
    weights need no labels. With ``stationary=drop`` labels are read all the same, where there are
    some, because they tell which episodes end in success. Which frames are idle is read where
    `stationary` needs it.

    Raises:
        UserError: the dataset is not labeled, its labels are another dataset's, columns and
            sidecar disagree, or the scheme needs what they do not hold.
    """
    frames = source.frames
    scheme = config.scheme
    needed = not isinstance(scheme, Uniform) or config.unlabelled_weight is not None
    wanted = needed
    if config.stationary == "drop" and not needed:
        wanted = (
            config.sidecar is not None
            or has_columns(source)
            or (
                config.source != "columns"
                and find_sidecar(source, option="dataset.repo_id") is not None
            )
        )
    origin, labels, made = _read(source, config) if wanted else ("", no_labels(frames), {})
    by_success = isinstance(scheme, Filter) and scheme.by == "success"
    if by_success and "log_prob_true" in labels.absent:
        raise UserError(
            f"`weighting.by=success` needs log-probabilities; {origin} has progress alone. "
            "Use `weighting.by=advantage`, or label the dataset: lerobot-topreward label"
        )
    rows = np.arange(len(frames.index))
    if episodes is not None:
        rows = np.flatnonzero(np.isin(frames.episode_index, np.asarray(episodes)))
        if not len(rows):
            raise UserError(
                f"`dataset.episodes={list(episodes)}` has no frames; the dataset has episodes "
                f"0..{frames.episode_index[-1]}"
            )
    chosen = labels.take(rows)
    if needed and not chosen.labelled.any():
        raise UserError(
            f"{origin} of {source.root} label none of the {len(rows)} frames that are trained on. "
            f"{label_command(source)}"
        )
    found = FrameLabels(
        index=chosen.index,
        episode_index=chosen.episode_index,
        task_index=frames.task_index[rows],
        progress=chosen.progress,
        log_prob=chosen.log_prob_true,
        labelled=chosen.labelled,
        prefix_end=None if "scored" in chosen.absent else chosen.scored,
        tasks=source.meta.tasks,
        fps=float(source.meta.fps),
        normalize=next(
            (each for each in get_args(Normalize) if each == made.get("normalize")), None
        ),
    )
    stationary = config.stationary
    if stationary == "auto":
        stationary = config.scheme.settle(found).stationary
    if stationary == "keep":
        return found
    try:
        idle = _read_idle(source, np.unique(found.episode_index).tolist())
    except UserError as error:
        if config.stationary == "auto":
            warn(f"frames that stand still are kept: {error}")
            return found
        raise UserError(
            f"`weighting.stationary=drop` looks for frames that stand still: {error}. Leave it out"
        ) from error
    return replace(found, idle=idle[rows])


def _read_idle(source: Source, episodes: list[int]) -> Bool[np.ndarray, " frames"]:
    """Mark the frames of some episodes at which neither commands nor readings change.

    What counts as a change is measured over all episodes, as `check` does.

    Raises:
        UserError: there are no commands and readings, or those of an episode cannot be read.
    """
    recorded = open_recorded(source.root, repo_id=source.repo_id, option=str(source.root))
    if not (recorded.signals.commands or recorded.signals.readings):
        raise UserError(f"{source.repo_id} has neither action nor observation.state")
    every = range(len(recorded.lengths))
    # Values of strangers overflow: what comes of it is inf or nan, which is never still.
    with np.errstate(all="ignore"):
        readable = (
            found for _, found in recorded.episodes(every) if not isinstance(found, EpisodeError)
        )
        profile = measure_profile(readable, recorded.signals, fps=recorded.fps)
        idle = np.zeros(len(source.frames.index), dtype=bool)
        for episode, found in recorded.episodes(episodes):
            rows = source.frames.rows(episode)
            if isinstance(found, EpisodeError):
                raise UserError(f"what episode {episode} recorded cannot be read: {found}")
            order = np.argsort(found.frame_index, kind="stable")
            idle[rows] = find_still(fill_gaps(found.values[order]), profile)
    return idle


def judge_source(source: Source, config: WeightingConfig) -> Judgment | str | None:
    """Judge the reward behind the labels, or say why that cannot be; None for uniform weights."""
    if isinstance(config.scheme, Uniform):
        return None
    if config.sidecar is not None:
        return f"`weighting.sidecar={config.sidecar}` is taken as it is"
    try:
        dataset = read_labelled(source)
        success = read_success(source, None)
    except UserError as error:
        return str(error)
    if not dataset.scores:  # as after trimming, which can leave frames between the scored ones
        return f"no episode of {source.root} has a score left"
    return judge_labels(dataset, controls=read_controls(dataset), success=success)


def _read(source: Source, config: WeightingConfig) -> tuple[str, FrameRewards, Mapping[str, Any]]:
    """Read the labels that the options choose; say where they are from, and how they were made.

    Of the labels of other programs it is not known how.
    """
    columns = has_columns(source)
    path = None
    if config.sidecar is not None:
        path = config.sidecar.expanduser()
        if not path.is_file():
            raise UserError(f"`weighting.sidecar` must be a parquet file; there is no {path}")
        if fingerprint_of(path) is None:
            return str(path), read_foreign_sidecar(path, source.frames), {}
    elif config.source != "columns":
        path = find_sidecar(source, option="dataset.repo_id")
        if path is None and config.source == "sidecar":
            raise UserError(
                f"`weighting.source=sidecar` needs {SIDECAR_NAME} in {source.root}; there is none. "
                f"{label_command(source)}"
            )
        if path is None and not columns:
            raise UserError(
                f"{source.root} is not labeled: it has neither {SIDECAR_NAME} nor columns "
                f"topreward.*\n{label_command(source)}, and train on the labeled copy"
            )
        if path is not None and fingerprint_of(path) is None:
            raise UserError(
                f"{path} was not written by lerobot-topreward. To use its progress all the same, "
                f"name it: `weighting.sidecar={path}`"
            )
    elif not columns:
        raise UserError(
            f"`weighting.source=columns` needs {', '.join(_NEEDED)}; {source.root} has none of "
            f"them. {label_command(source)}"
        )
    if path is None:
        return _COLUMNS, read_label_columns(source, needed=_NEEDED), read_description(source)

    # From here on there is a sidecar of ours, named or found. Where nothing says which copy counts,
    # columns win over a sidecar of an earlier state of the dataset, and else both must agree.
    both = config.sidecar is None and config.source == "auto" and columns
    stale = fingerprint_of(path) != source.fingerprints.dataset
    if stale and both:
        warn(explain_columns(source, path))
        return _COLUMNS, read_label_columns(source, needed=_NEEDED), read_description(source)
    stored, made = read_sidecar(path, fingerprint=None)
    if stale:
        instead = ". Or use `weighting.source=columns`" if columns else ""
        raise UserError(f"{path} is stale: {explain_edit(source, path)}{instead}")
    labels = lay_out(path, stored, source.frames)
    if both:
        _check_agreement(source, str(path), labels, read_label_columns(source, needed=_NEEDED))
    return str(path), labels, made


def _check_agreement(
    source: Source, origin: str, sidecar: FrameRewards, columns: FrameRewards
) -> None:
    """Refuse two copies of the labels of which one must be old."""
    both = sidecar.labelled & columns.labelled
    differences = {"labelled or not": sidecar.labelled != columns.labelled}
    for name, field in (("progress", "progress"), ("log_prob", "log_prob_true")):
        gap = np.abs(getattr(sidecar, field) - getattr(columns, field))
        differences[name] = both & (gap > _AGREE_TO)
    found = {name: np.flatnonzero(rows) for name, rows in differences.items() if rows.any()}
    if found:
        what = ", ".join(f"{name} of {len(rows)} frames" for name, rows in found.items())
        first = name_frame(source.frames, min(rows[0] for rows in found.values()))
        raise UserError(
            f"{origin} and {_COLUMNS} disagree: {what}, first {first}.\n"
            "Say which is right, `weighting.source=sidecar` or `weighting.source=columns`, or label again"
        )

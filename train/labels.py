"""The labels of the frames that are trained on, from wherever a dataset keeps them."""

from collections.abc import Sequence

import numpy as np

from lerobot_topreward.console import warn
from lerobot_topreward.data.dataset import Source
from lerobot_topreward.data.frames import task_names
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.labels import (
    explain_columns,
    explain_edit,
    find_sidecar,
    has_columns,
    label_command,
    lay_out,
    name_frame,
    no_labels,
    read_foreign_sidecar,
    read_label_columns,
)
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
    """Read the labels of the frames that are trained on.

    Args:
        source: the dataset.
        episodes: which ones are trained on, in any order; None for all.
        config: where the labels are, and which scheme needs them.

    Returns:
        The frames of those episodes in the order of their global index; those without a label are
        among them. Uniform weights need no labels: none is read.

    Raises:
        UserError: the dataset is not labelled, its labels are another dataset's, columns and
            sidecar disagree, or the scheme needs what they do not hold.
    """
    frames = source.frames
    scheme = config.scheme
    needed = not isinstance(scheme, Uniform) or config.unlabelled_weight is not None
    origin, labels = _read(source, config) if needed else ("", no_labels(frames))
    by_success = isinstance(scheme, Filter) and scheme.by == "success"
    if by_success and "log_prob_true" in labels.absent:
        raise UserError(
            f"--weighting.by=success needs log-probabilities; {origin} has progress alone. "
            "Use --weighting.by=advantage, or label the dataset: lerobot-topreward label"
        )
    rows = np.arange(len(frames.index))
    if episodes is not None:
        rows = np.flatnonzero(np.isin(frames.episode_index, np.asarray(episodes)))
        if not len(rows):
            raise UserError(
                f"--dataset.episodes {list(episodes)} has no frames; the dataset has episodes "
                f"0..{frames.episode_index[-1]}"
            )
    chosen = labels.take(rows)
    if needed and not chosen.labelled.any():
        raise UserError(
            f"{origin} of {source.root} label none of the {len(rows)} frames that are trained on. "
            f"{label_command(source)}"
        )
    return FrameLabels(
        index=chosen.index,
        episode_index=chosen.episode_index,
        task_index=frames.task_index[rows],
        progress=chosen.progress,
        log_prob=chosen.log_prob_true,
        labelled=chosen.labelled,
        prefix_end=None if "scored" in chosen.absent else chosen.scored,
        tasks=task_names(source.meta),
        fps=float(source.meta.fps),
    )


def _read(source: Source, config: WeightingConfig) -> tuple[str, FrameRewards]:
    """Read the labels that the options choose, and say where they are from."""
    columns = has_columns(source)
    path = None
    if config.sidecar is not None:
        path = config.sidecar.expanduser()
        if not path.is_file():
            raise UserError(f"--weighting.sidecar must be a parquet file; there is no {path}")
        if fingerprint_of(path) is None:
            return str(path), read_foreign_sidecar(path, source.frames)
    elif config.source != "columns":
        path = find_sidecar(source, option="dataset.repo_id")
        if path is None and config.source == "sidecar":
            raise UserError(
                f"--weighting.source=sidecar needs {SIDECAR_NAME} in {source.root}; there is none. "
                f"{label_command(source)}"
            )
        if path is None and not columns:
            raise UserError(
                f"{source.root} is not labelled: it has neither {SIDECAR_NAME} nor columns "
                f"topreward.*\n{label_command(source)}, and train on the labelled copy"
            )
        if path is not None and fingerprint_of(path) is None:
            raise UserError(
                f"{path} was not written by lerobot-topreward. To use its progress all the same, "
                f"name it: --weighting.sidecar={path}"
            )
    elif not columns:
        raise UserError(
            f"--weighting.source=columns needs {', '.join(_NEEDED)}; {source.root} has none of "
            f"them. {label_command(source)}"
        )
    if path is None:
        return _COLUMNS, read_label_columns(source, needed=_NEEDED)

    both = config.sidecar is None and config.source == "auto" and columns
    stale = fingerprint_of(path) != source.fingerprints.dataset
    if stale and both:
        warn(explain_columns(source, path))
        return _COLUMNS, read_label_columns(source, needed=_NEEDED)
    stored, _ = read_sidecar(path, fingerprint=None)
    if stale:
        instead = ". Or use --weighting.source=columns" if columns else ""
        raise UserError(f"{path} is stale: {explain_edit(source, path)}{instead}")
    labels = lay_out(path, stored, source.frames)
    if both:
        _check_agreement(source, str(path), labels, read_label_columns(source, needed=_NEEDED))
    return str(path), labels


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
            "Say which is right, --weighting.source=sidecar or =columns, or label again"
        )

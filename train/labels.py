"""The labels of the frames that are trained on, from wherever a dataset keeps them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from lerobot_topreward.console import warn
from lerobot_topreward.data.dataset import FrameTable, Source, task_names
from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.label_columns import columns_instead, has_columns, place
from lerobot_topreward.storage.reader import find_sidecar, label_command
from lerobot_topreward.storage.sidecar import SIDECAR_NAME
from lerobot_topreward.storage.sources import (
    StoredLabels,
    fits,
    is_own,
    read_foreign_sidecar,
    read_own_sidecar,
    read_stored_columns,
)
from lerobot_topreward.train.config import WeightingConfig
from lerobot_topreward.train.records import FrameLabels
from lerobot_topreward.train.schemes import Filter, Uniform

_AGREE_TO = 1e-6  # both copies are written from the same float32 values


def read_labels(
    source: Source,
    table: FrameTable,
    *,
    episodes: Sequence[int] | None,
    config: WeightingConfig,
) -> FrameLabels:
    """Read the labels of the frames that are trained on.

    Args:
        source: the dataset.
        table: all its frames.
        episodes: which ones are trained on, in any order; None for all.
        config: where the labels are, and which scheme needs them.

    Returns:
        The frames of those episodes in the order of their global index; those without a label are
        among them. Uniform weights need no labels: none is read.

    Raises:
        UserError: the dataset is not labelled, its labels are another dataset's, columns and
            sidecar disagree, or the scheme needs what they do not hold.
    """
    needed = not isinstance(config.scheme, Uniform) or config.unlabelled_weight is not None
    stored = _choose(source, table, config) if needed else _nothing(table)
    scheme = config.scheme
    if stored.log_prob is None and isinstance(scheme, Filter) and scheme.by == "success":
        raise UserError(
            f"--weighting.by=success needs log-probabilities; {stored.origin} has progress alone. "
            "Use --weighting.by=advantage, or label the dataset: lerobot-topreward label"
        )
    rows = _rows(table, episodes)
    if needed and not stored.labelled[rows].any():
        raise UserError(
            f"{stored.origin} of {source.root} label none of the {len(rows)} frames that are "
            f"trained on. {label_command(source)}"
        )
    log_prob = np.zeros_like(stored.progress) if stored.log_prob is None else stored.log_prob
    return FrameLabels(
        index=table.index[rows],
        episode_index=table.episode_index[rows],
        task_index=table.task_index[rows],
        progress=stored.progress[rows],
        log_prob=log_prob[rows],
        labelled=stored.labelled[rows],
        prefix_end=None if stored.scored is None else stored.scored[rows],
        tasks=task_names(source.meta),
        fps=float(source.meta.fps),
    )


def _nothing(table: FrameTable) -> StoredLabels:
    """No labels: plain behavior cloning does not ask for them."""
    frames = len(table.index)
    return StoredLabels(
        origin="",
        progress=np.zeros(frames, dtype=np.float32),
        log_prob=None,
        labelled=np.zeros(frames, dtype=bool),
        scored=None,
    )


def _choose(source: Source, table: FrameTable, config: WeightingConfig) -> StoredLabels:
    if config.sidecar is not None:
        path = config.sidecar.expanduser()
        if not path.is_file():
            raise UserError(f"--weighting.sidecar must be a parquet file; there is no {path}")
        if is_own(path):
            return read_own_sidecar(path, source, table)
        return read_foreign_sidecar(path, table)
    if config.source == "columns":
        return read_stored_columns(source, table)
    return _automatic(source, table, config)


def _automatic(source: Source, table: FrameTable, config: WeightingConfig) -> StoredLabels:
    path = find_sidecar(source, option="--dataset.repo_id")
    if path is None:
        if config.source == "sidecar":
            raise UserError(
                f"--weighting.source=sidecar needs {SIDECAR_NAME} in {source.root}; there is none. "
                f"{label_command(source)}"
            )
        if not has_columns(source):
            raise UserError(
                f"{source.root} is not labelled: it has neither {SIDECAR_NAME} nor columns "
                f"topreward.*\n{label_command(source)}, and train on the labelled copy"
            )
        return read_stored_columns(source, table)
    if not is_own(path):
        raise UserError(
            f"{path} was not written by lerobot-topreward. To use its progress all the same, name "
            f"it: --weighting.sidecar={path}"
        )
    if config.source == "auto" and has_columns(source) and not fits(path, source, table):
        warn(columns_instead(source, path))
        return read_stored_columns(source, table)
    sidecar = read_own_sidecar(path, source, table)
    if config.source == "auto" and has_columns(source):
        _check_agreement(table, sidecar, read_stored_columns(source, table))
    return sidecar


def _check_agreement(table: FrameTable, sidecar: StoredLabels, columns: StoredLabels) -> None:
    """Refuse two copies of the labels of which one must be old."""
    both = sidecar.labelled & columns.labelled
    differences = {"labelled or not": sidecar.labelled != columns.labelled}
    for name in ("progress", "log_prob"):
        gap = np.abs(getattr(sidecar, name) - getattr(columns, name))
        differences[name] = both & (gap > _AGREE_TO)
    found = {name: np.flatnonzero(rows) for name, rows in differences.items() if rows.any()}
    if found:
        what = ", ".join(f"{name} of {len(rows)} frames" for name, rows in found.items())
        first = min(rows[0] for rows in found.values())
        raise UserError(
            f"{sidecar.origin} and {columns.origin} disagree: {what}, first {place(table, first)}.\n"
            "Say which is right, --weighting.source=sidecar or =columns, or label again"
        )


def _rows(table: FrameTable, episodes: Sequence[int] | None) -> Int64[np.ndarray, " frames"]:
    if episodes is None:
        return np.arange(len(table.index))
    rows = np.flatnonzero(np.isin(table.episode_index, np.asarray(episodes)))
    if not len(rows):
        last = table.episode_index[-1]
        raise UserError(
            f"--dataset.episodes {list(episodes)} has no frames; the dataset has episodes 0..{last}"
        )
    return rows

"""Small labelled datasets whose good and bad episodes are known."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from provenance import provenance

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.reader import LabelledDataset, open_labelled

ENDS = (-0.1, -4.0, -3.5, -0.2, -0.15)  # success scores: episodes 1 and 2 are bad
GOOD = [0, 3, 4]


def write_labels(
    root: Path, output: Path, *, ends: Sequence[float] = ENDS, unlabelled: Sequence[int] = ()
) -> Path:
    """Label a dataset with log-probabilities that soon rise from -5 to an end of their own."""
    source = open_source(repo_id=None, root=root, revision=None)
    table = source.frames
    log_prob = np.zeros(len(table.index))
    for episode, end in enumerate(ends):
        rows = table.rows(episode)
        time = np.linspace(1, 0, rows.stop - rows.start)[::-1]
        log_prob[rows] = np.interp(time, [0, 0.3], [-5, end])
    labelled = ~np.isin(table.episode_index, unlabelled)
    lengths = np.bincount(table.episode_index)[table.episode_index]
    scored = (table.frame_index % 5 == 0) | (table.frame_index == lengths - 1)  # at 10 Hz
    values = np.where(labelled, log_prob, 0).astype(np.float32)
    rewards = FrameRewards(
        index=table.index,
        episode_index=table.episode_index,
        frame_index=table.frame_index,
        labelled=labelled,
        log_prob_true=values,
        log_prob_false=np.where(labelled, -1, 0).astype(np.float32),
        progress=np.exp(values) * labelled,
        advantage=values * 0,
        scored=labelled & scored,
    )
    made = provenance(dataset="local/cups")
    fingerprint = source.fingerprints.dataset
    write_columns(root, rewards, output, fingerprint=fingerprint, provenance=made)
    return output


def labelled(root: Path) -> LabelledDataset:
    return open_labelled(repo_id=None, root=root, revision=None)


def frame(dataset: LeRobotDataset, index: int) -> dict[str, Any]:
    found: Any = dataset[index]
    return found


def contents(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def decisions(path: Path, dataset: Path, said: Any, **changes: Any) -> Path:
    content = {
        "format": 1,
        "dataset": "local/cups",
        "fingerprint": labelled(dataset).source.fingerprints.dataset,
        "decisions": said,
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


def hold(root: Path, episode: int, *, head: int, tail: int) -> None:
    """Let state and action stand still at the ends of an episode."""
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    [rows] = np.nonzero(table["episode_index"].to_numpy() == episode)
    for name in ("observation.state", "action"):
        values = np.array(table[name].to_pylist(), dtype=np.float32)
        values[rows] = np.cumsum(values[rows] * 0 + 1, axis=0)
        values[rows[: head + 1]] = values[rows[0]]
        values[rows[len(rows) - tail - 1 :]] = values[rows[-1]]
        place = table.column_names.index(name)
        column = pa.array(values.tolist(), table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), column)
    pq.write_table(table, path)

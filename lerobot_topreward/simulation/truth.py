"""What truly happened in simulated episodes: a table beside their dataset, for evaluation only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32

from lerobot_topreward.errors import UserError

TRUTH_FILE = "truth.parquet"
_COLUMNS = ("episode_index", "frame_index", "progress", "success", "kind")


@dataclass(frozen=True, slots=True)
class Truth:
    """What truly happened in one simulated episode."""

    kind: str  # good, slow, detour, retry, missed, wrong_place, undone or idle
    success: bool  # the task is accomplished when the episode ends
    progress: Float32[np.ndarray, " frames"]  # 0..1, the furthest stage so far unless undone


def write_truth(folder: Path, truths: list[Truth]) -> None:
    """Write the truth of a dataset's episodes, in the order of their indices."""
    tables = [
        pd.DataFrame(
            {
                "episode_index": episode,
                "frame_index": range(len(truth.progress)),
                "progress": truth.progress,
                "success": truth.success,
                "kind": truth.kind,
            }
        )
        for episode, truth in enumerate(truths)
    ]
    pd.concat(tables).to_parquet(folder / TRUTH_FILE, index=False)


def read_truth(folder: Path) -> dict[int, Truth]:
    """Read the truth that `simulate` leaves in a dataset's folder.

    Returns:
        One entry per episode index.

    Raises:
        UserError: there is none, or it lacks a column.
    """
    path = folder / TRUTH_FILE
    if not path.is_file():
        raise UserError(
            f"{path} is missing: only simulated datasets say what truly happened; record one "
            "with python -m lerobot_topreward.simulation.simulate"
        )
    table = pd.read_parquet(path)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; record the dataset again")
    table = table.sort_values(["episode_index", "frame_index"])
    return {
        int(str(episode)): Truth(
            kind=str(rows["kind"].iloc[0]),
            success=bool(rows["success"].iloc[0]),
            progress=rows["progress"].to_numpy(dtype=np.float32),
        )
        for episode, rows in table.groupby("episode_index")
    }

"""How well rewards agree with the simulator's truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float32

from lerobot_topreward.errors import UserError
from lerobot_topreward.judging.metrics import mean_defined, rise, roc_auc, success_score, voc
from lerobot_topreward.records import PrefixScores

TRUTH_FILE = "truth.parquet"
_COLUMNS = ("episode_index", "frame_index", "progress", "success", "kind")


@dataclass(frozen=True, slots=True)
class Truth:
    """What truly happened in one simulated episode."""

    kind: str  # good, slow, detour, retry, missed, wrong_place, undone or idle
    success: bool  # the task is accomplished when the episode ends
    progress: Float32[np.ndarray, " frames"]  # 0..1, the furthest stage so far unless undone


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The demo's four numbers; nan where undefined."""

    successes: int  # episodes that truly succeed
    failures: int  # episodes that do not
    voc: float  # mean over successes, -1..1
    auc: float  # of success scores, 0..1
    static_voc: float  # mean over the static controls whose curve is not constant, -1..1
    static_rise: float  # mean rise of static controls over mean real rise of successes, a share


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
    table = pq.read_table(path)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; record the dataset again")
    frame = table.to_pandas().sort_values(["episode_index", "frame_index"])
    return {
        int(str(index)): Truth(
            kind=str(rows["kind"].iloc[0]),
            success=bool(rows["success"].iloc[0]),
            progress=rows["progress"].to_numpy(dtype=np.float32),
        )
        for index, rows in frame.groupby("episode_index")
    }


def evaluate(
    real: Sequence[PrefixScores], static: Sequence[PrefixScores], truth: Mapping[int, Truth]
) -> Evaluation:
    """Compare scored prefixes with the truth.

    The share that statics rise compares means over all episodes: a single episode's real rise may
    be close to nothing.

    Args:
        real: scores of episodes as they are, one entry per episode.
        static: scores of the same episodes with their first frame repeated.
        truth: by episode index; may hold more episodes than were scored.

    Raises:
        ValueError: nothing was scored, or an episode has no truth.
    """
    if not real:
        raise ValueError("real must hold at least one scored episode; got none")
    unknown = sorted({one.segment.episode_index for one in real} - set(truth))
    if unknown:
        raise ValueError(f"episodes {unknown} have no truth")
    success = np.array([truth[one.segment.episode_index].success for one in real])
    good = [one.log_prob_true for one, succeeds in zip(real, success, strict=True) if succeeds]
    still = [one.log_prob_true for one in static]
    climbed = mean_defined([rise(curve) for curve in good])
    return Evaluation(
        successes=len(good),
        failures=len(real) - len(good),
        voc=mean_defined([voc(curve) for curve in good]),
        auc=roc_auc(np.array([success_score(one.log_prob_true) for one in real]), success),
        static_voc=mean_defined([voc(curve) for curve in still]),
        static_rise=mean_defined([rise(curve) for curve in still]) / climbed
        if climbed
        else float("nan"),
    )

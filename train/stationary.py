"""Frames that stand still: where nothing is recorded to move and progress stays where it is.

A policy that learns from them learns to stand still. The end of an episode that succeeds is left
alone: there a robot is meant to rest.
"""

import numpy as np
from jaxtyping import Bool

from lerobot_topreward.judging.motion import find_runs_of
from lerobot_topreward.train.records import FrameLabels, final_progress

_LEAST_S = 1.0  # s: a shorter rest is part of a movement
# A VLM's opinion of a stationary video drifts: by a quarter in four seconds, in the demo. Where it
# changes more, something else moves: a cup fills, a person hands an object over.
_DRIFT = 0.3  # progress, in a stretch of up to three seconds
_DRIFT_PER_S = 0.1  # progress, in a longer one


def find_stationary(labels: FrameLabels) -> Bool[np.ndarray, " frames"]:
    """Mark the idle stretches of at least a second in which progress stays where it is.

    Not the last one of an episode that ends with a progress of `metrics.DONE` or more, or of one
    without labels, of which nobody knows how it ends. Frames without a label have no progress that
    moves.

    Raises:
        ValueError: it is not known which frames are idle.
    """
    from lerobot_topreward.judging.metrics import DONE  # --help need not wait for scipy

    if labels.idle is None:
        raise ValueError("labels must say which frames are idle")
    least = max(1, round(_LEAST_S * labels.fps))
    stationary = np.zeros(len(labels.index), dtype=bool)
    for rows in labels.episodes():
        progress, labeled = labels.progress[rows], labels.labelled[rows]
        frames = len(progress)
        unknown_or_good = not labeled[-1] or final_progress(labels, rows) >= DONE
        for first, last in find_runs_of(labels.idle[rows]):
            run = slice(first, last + 1)
            known = progress[run][labeled[run]]
            drift = max(_DRIFT, _DRIFT_PER_S * (last + 1 - first) / labels.fps)
            moves = len(known) > 0 and float(np.ptp(known)) > drift
            rests = last == frames - 1 and unknown_or_good
            if last + 1 - first >= least and not moves and not rests:
                stationary[rows.start + first : rows.start + last + 1] = True
    return stationary

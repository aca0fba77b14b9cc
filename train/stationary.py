"""Frames that stand still: neither what was recorded nor progress changes.

A policy that learns from them learns to stand still. The end of an episode that succeeds is kept,
because the robot is meant to rest there.
"""

import numpy as np
from jaxtyping import Bool

from lerobot_topreward.judging.motion import find_runs_of
from lerobot_topreward.train.records import FrameLabels, final_progress

_LEAST_S = 1.0  # s: a shorter rest is part of a movement
# The progress of a still video drifts: by .25 in four seconds in the demo. Where it changes more,
# something other than the robot moves: a cup fills, a person hands an object over.
_DRIFT = 0.3  # progress, in a stretch of up to three seconds
_DRIFT_PER_S = 0.1  # progress, in a longer one


def find_stationary(labels: FrameLabels) -> Bool[np.ndarray, " frames"]:
    """Mark the idle stretches of at least a second in which progress stays where it is.

    A stretch that lasts until the end of an episode is not marked where the final progress is
    `metrics.DONE` or more, or where there is no label. The progress of frames without a label is
    not looked at.

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

"""What a reward is worth on the scale of a labeled dataset, for one instruction."""

from dataclasses import dataclass

import numpy as np

from lerobot_topreward.console import warn
from lerobot_topreward.errors import UserError
from lerobot_topreward.rewards import (
    TASK_QUANTILES,
    Formula,
    Scale,
    make_curves,
    scale_between,
    value_answers,
)
from lerobot_topreward.storage.reader import LabelledDataset


@dataclass(frozen=True, slots=True)
class Calibration:
    """Progress of single answers, as `normalize_task` makes it of all answers of a task."""

    scale: Scale  # what progress is made of
    low: float  # the value that is progress 0
    high: float  # the value that is progress 1

    def progress(self, log_prob_true: float, log_prob_false: float) -> float:
        """Progress, 0..1, of two answers in nats."""
        true, false = np.array([log_prob_true]), np.array([log_prob_false])
        values = value_answers(true, false, self.scale)
        return float(scale_between(values, low=self.low, high=self.high)[0])


def calibrate(reference: LabelledDataset, instruction: str, *, vlm_revision: str) -> Calibration:
    """Take the scale of one task from the scores of a labeled dataset.

    Args:
        reference: whose episodes of this task include successes, shown about as the new images are.
        instruction: of the task.
        vlm_revision: of the checkpoint whose answers will be scaled.

    Raises:
        UserError: another VLM scored it, or nothing was scored under this instruction.
    """
    key = reference.key
    name = reference.source.repo_id
    if key.reward_model is not None or key.vlm_revision != vlm_revision:
        raise UserError(
            f"`reference={name}` was scored by {key.judge} at revision {key.vlm_revision[:12]}, and "
            f"rewards now come from revision {vlm_revision[:12]}: their log-probabilities do not "
            "compare; label it with the `vlm` that is used here"
        )
    scores = [part for part in reference.scores if part.segment.instruction == instruction]
    if not scores:
        tasks = sorted({part.segment.instruction for part in reference.scores})
        raise UserError(
            f"`reference={name}` has no scores for '{instruction}'; it has {len(tasks)} tasks: "
            f"{', '.join(repr(task) for task in tasks[:3])}"
        )
    formula = reference.formula
    if formula.debias != "none":
        warn(
            f"`reference={name}`: its labels are {formula.name}; one image after another only "
            f"{formula.scale} is known, so progress is made of that"
        )
    values = np.concatenate(make_curves(scores, Formula(formula.scale)))
    low, high = np.quantile(values, TASK_QUANTILES)
    return Calibration(formula.scale, float(low), float(high))

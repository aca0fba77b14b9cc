"""Is one episode good? A line through success scores, with the zone in which it cannot be said.

A line is known only so well: a VLM's answers are rounded, and one that was learned from episodes
would be another with other episodes. Scores in that zone are not judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64

from lerobot_topreward.judging.intervals import CONFIDENCE
from lerobot_topreward.judging.judgment import LEAST_STEPS, STEPS
from lerobot_topreward.judging.metrics import TAIL, success_score
from lerobot_topreward.judging.rules import DEFAULT_FINAL_PROGRESS
from lerobot_topreward.judging.thresholds import best_line
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.rewards import TASK_QUANTILES

FEWEST = 5  # episodes, or outcomes of each kind, before a line is drawn from them
_RESAMPLES = 200
_MOST = 300  # episodes that are resampled, of each outcome

Word = Literal["good", "bad", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Line:
    """From which success score on an episode is good, in nats."""

    value: float
    low: float  # below this it is bad
    high: float  # from this on it is good; in between, it cannot be said
    origin: str  # who drew it, in words


@dataclass(frozen=True, slots=True)
class Opinion:
    """What can be said of one episode."""

    word: Word
    score: float  # success score, nats
    reason: str


def judge_episode(scores: Sequence[PrefixScores], line: Line | str) -> Opinion:
    """Compare an episode with a line.

    Args:
        scores: of its segments, in the order of time.
        line: or why there is none.
    """
    score = success_score(np.concatenate([part.success for part in scores]))
    if isinstance(line, str):
        return Opinion("cannot tell", score, line)
    bounds = [part.true_censored for part in scores if part.true_censored is not None]
    is_bound = bool(bounds) and bool(np.concatenate(bounds)[-TAIL:].any())
    shown = f"success score {score:.2f} nats"
    if score < line.low:
        return Opinion("bad", score, f"{shown} < {line.value:.2f} of {line.origin}")
    if is_bound:
        text = f"{shown} is only a bound, as the server hides unlikely answers"
        return Opinion("cannot tell", score, text)
    if score >= line.high:
        return Opinion("good", score, f"{shown} >= {line.value:.2f} of {line.origin}")
    text = f"{shown} is within the noise of {line.origin}, {line.low:.2f} to {line.high:.2f}"
    return Opinion("cannot tell", score, text)


def line_at(value: float, *, origin: str, precision: str) -> Line:
    """A line that was given, blurred by what a VLM's answers are rounded to.

    Args:
        value: nats.
        origin: who gave it, in words.
        precision: dtype whose steps the scores have.
    """
    noise = _noise(precision)
    return Line(value, value - noise, value + noise, origin)


def line_of_outcomes(
    scores: Float[np.ndarray, " episodes"],
    success: Bool[np.ndarray, " episodes"],
    *,
    origin: str,
    precision: str,
) -> Line | str:
    """The line that tells successes from failures best, as `suggest_threshold` draws it.

    Its zone is the 95 % interval of lines through resampled episodes, successes and failures apart,
    at most `_MOST` of each.

    Returns:
        The line, or why there are too few outcomes for one.
    """
    kinds = [np.flatnonzero(success), np.flatnonzero(~success)]
    if min(map(len, kinds)) < FEWEST:
        return (
            f"{origin} has {len(kinds[0])} successes and {len(kinds[1])} failures, and a line takes "
            f"{FEWEST} of each"
        )
    rng = np.random.default_rng(0)
    kinds = [
        rows if len(rows) <= _MOST else rng.choice(rows, _MOST, replace=False) for rows in kinds
    ]

    def draw(rng: np.random.Generator) -> float:
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in kinds])
        return best_line(scores[rows], success[rows])

    return _blur(best_line(scores, success), draw, rng, origin=origin, precision=precision)


def line_of_progress(
    curves: Sequence[Float[np.ndarray, " _"]],
    *,
    origin: str,
    precision: str,
) -> Line | str:
    """The line of the default curation rule, where no outcome is known.

    A final progress of 0.8 on the scale of a task's episodes, see `normalize_task`, in nats.

    Args:
        curves: log P(True) of each episode of one task, nats.
        origin: where they come from, in words.
        precision: dtype whose steps the scores have.

    Returns:
        The line, or why there are too few episodes for one.
    """
    if len(curves) < FEWEST:
        return f"{origin} has {len(curves)} episodes of this task, and a line takes {FEWEST}"

    def line_of(rows: Sequence[int] | Int64[np.ndarray, " rows"]) -> float:
        values = np.concatenate([curves[i] for i in rows]).astype(np.float64)
        low, high = np.quantile(values, TASK_QUANTILES)
        return float(low + DEFAULT_FINAL_PROGRESS * (high - low))

    def draw(rng: np.random.Generator) -> float:
        return line_of(rng.integers(len(curves), size=min(len(curves), _MOST)))

    rng = np.random.default_rng(0)
    return _blur(line_of(range(len(curves))), draw, rng, origin=origin, precision=precision)


def _blur(
    value: float,
    draw: Callable[[np.random.Generator], float],
    rng: np.random.Generator,
    *,
    origin: str,
    precision: str,
) -> Line:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile([draw(rng) for _ in range(_RESAMPLES)], (tail, 1 - tail))
    noise = _noise(precision)
    return Line(value, min(value, float(low)) - noise, max(value, float(high)) + noise, origin)


def _noise(precision: str) -> float:
    return LEAST_STEPS * STEPS.get(precision, STEPS["bfloat16"])

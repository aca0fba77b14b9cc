"""What a comparison found, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lerobot_topreward import __version__
from lerobot_topreward.compare.config import Judge
from lerobot_topreward.console import spell_options
from lerobot_topreward.files.jsonable import plain
from lerobot_topreward.judging.choice import Advice
from lerobot_topreward.judging.intervals import Estimate
from lerobot_topreward.judging.judges import JudgeSummary
from lerobot_topreward.judging.judgment import judgment_to_json
from lerobot_topreward.judging.metrics import mean_defined
from lerobot_topreward.records import PrefixScores
from lerobot_topreward.storage.key import ScoreKey
from lerobot_topreward.vlm.identity import VlmIdentity


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """One judge: what its scores say, or why there are none."""

    letter: str  # that the table calls it by
    judge: Judge
    identity: VlmIdentity | None = None
    key: ScoreKey | None = None  # of its scores
    folder: Path | None = None  # that holds them
    scores: Sequence[PrefixScores] = ()  # of the sample, control "none"
    summary: JudgeSummary | None = None
    reason: str | None = None  # why it could not be compared
    failed: Mapping[int, str] = field(default_factory=dict)  # episode -> reason
    scored: int = 0  # videos that it was asked about now: an episode under a control is one
    seconds: float = float("nan")  # per video scored now; nan where all was stored


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several judges on one sample of a dataset."""

    dataset: str
    total: int  # episodes of the dataset
    episodes: Sequence[int]  # of the sample
    success: Mapping[int, bool]  # of the sample, as far as it is known
    camera: str  # feature key
    schedule: str  # what all of them were shown and when they were asked, in words
    results: Sequence[JudgeResult]  # in the order in which the judges were given
    agreement: Mapping[tuple[str, str], Estimate]  # of the rank of prefixes, by two letters
    advice: Advice | None  # None where no judge could be compared
    label: str | None  # the command that labels with the advised one

    @property
    def failed(self) -> bool:
        """Whether a judge or one of its episodes failed."""
        return any(result.reason is not None or result.failed for result in self.results)

    def agreement_of(self, letter: str) -> float:
        """The mean agreement of a judge with every other one, -1..1; nan where there is none."""
        found = [each.value for pair, each in self.agreement.items() if letter in pair]
        return mean_defined(found)


def to_json(found: Comparison) -> dict[str, Any]:
    """Put everything that was found as JSON can hold it; null where undefined."""
    return {
        "version": __version__,
        "dataset": found.dataset,
        "episodes": plain(found.episodes),
        "success": plain(found.success),
        "camera": found.camera,
        "schedule": found.schedule,
        "judges": [_judge_to_json(result, found) for result in found.results],
        "agreement": [
            {"judges": list(pair), **plain(estimate)} for pair, estimate in found.agreement.items()
        ],
        "advice": None
        if found.advice is None
        else {"use": list(found.advice.names), "sentence": spell_options(found.advice.sentence)},
        "label": None if found.label is None else spell_options(found.label),
    }


def _judge_to_json(result: JudgeResult, found: Comparison) -> dict[str, Any]:
    summary = result.summary
    numbers: dict[str, Any] = {}
    if summary is not None:
        numbers = {
            "voc": plain(summary.voc),
            "auc": plain(summary.auc),
            "controls": plain(summary.controls),
            "censored": summary.censored,
            "agreement": plain(found.agreement_of(result.letter)),
            "judgment": judgment_to_json(summary.judgment),
        }
    return {
        "letter": result.letter,
        "name": result.judge.name,
        "key": None if result.key is None else result.key.to_json(),
        "scores": plain(result.folder),
        "reason": None if result.reason is None else spell_options(result.reason),
        "failed": {str(episode): spell_options(why) for episode, why in result.failed.items()},
        "scored_now": result.scored,
        "seconds_per_video": plain(result.seconds),
        **numbers,
    }

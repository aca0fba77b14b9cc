"""Scores of which a server gave only a bound: how many there are, and when they are too many."""

from collections.abc import Iterable
from dataclasses import dataclass

from lerobot_topreward.errors import UserError
from lerobot_topreward.records import PrefixScores

MOST_CENSORED = 0.5  # of the prefixes; beyond, a curve is mostly the server's own limit
_ENOUGH = 60  # prefixes, before a run is stopped for it


@dataclass(slots=True)
class Censoring:
    """Counts of prefixes under control "none"."""

    prefixes: int = 0
    true: int = 0  # of these, True was only bounded
    false: int = 0

    def add(self, scores: Iterable[PrefixScores]) -> None:
        """Count some scores, those of controls left out."""
        for each in scores:
            if each.control != "none":
                continue
            self.prefixes += len(each.prefix_length)
            self.true += 0 if each.true_censored is None else int(each.true_censored.sum())
            self.false += 0 if each.false_censored is None else int(each.false_censored.sum())

    def describe(self) -> list[str]:
        """Say how many were censored; nothing where none was."""
        return [
            f"{answer} was below the likeliest tokens that the server returns in {count} of "
            f"{self.prefixes} prefixes: those scores are bounds, marked in the shards"
            for answer, count in (("True", self.true), ("False", self.false))
            if count
        ]

    def refuse_most(self, *, enough: int = 1) -> None:
        """Refuse scores most of which are bounds.

        Args:
            enough: prefixes that must have been counted.

        Raises:
            UserError: says what to do.
        """
        if self.prefixes < enough or self.true <= MOST_CENSORED * self.prefixes:
            return
        raise UserError(
            f"True was below the likeliest tokens that the server returns in {self.true} of "
            f"{self.prefixes} prefixes, so no reward can be made of them. Serve the model with vLLM, "
            "which returns any token (`server_video=exact`, for Qwen3-VL), let the server return "
            "more, or take a model that answers with True or False"
        )

    def refuse_early(self) -> None:
        """The same while a run goes on, once there are enough prefixes to know.

        Raises:
            UserError: see `refuse_most`.
        """
        self.refuse_most(enough=_ENOUGH)

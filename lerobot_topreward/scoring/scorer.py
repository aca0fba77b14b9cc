"""The Scorer protocol, and the controls that a scorer is compared under."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from lerobot_topreward.data.schedule import last_frames, prefix_lengths
from lerobot_topreward.errors import UserError
from lerobot_topreward.records import Clip, LogProbs, PrefixScores
from lerobot_topreward.storage.key import ScoringConfig

CONTROLS = ("static", "reversed", "swapped")  # what a reward is compared with


@runtime_checkable
class Scorer(Protocol):
    """Anything that can say how likely a growing video completes an instruction."""

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip.

        Args:
            clip: the images and their times.
            prefixes: how many images of the clip each prefix shows, ascending, 1..sampled.
            instructions: what may have been completed; each is scored against every prefix.

        Returns:
            Log-probabilities of " True" and " False", each (instructions, prefixes), nats.

        Raises:
            EpisodeError: this clip cannot be scored (not finite, out of memory); others may be.
        """
        ...


@runtime_checkable
class SizedScorer(Scorer, Protocol):
    """A scorer that can say how large it shows a clip."""

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width of every image as the VLM gets it, pixels.

        Raises:
            EpisodeError: this clip cannot be shown.
        """
        ...


@runtime_checkable
class FittingScorer(SizedScorer, Protocol):
    """A scorer that needs frames no larger than it shows them, and resizes them one by one."""

    def fit(
        self, frame: UInt8[np.ndarray, "height width 3"], images: int
    ) -> UInt8[np.ndarray, "new_height new_width 3"]:
        """What a clip of so many images needs of one of its frames; the scores are the same.

        Raises:
            EpisodeError: such a clip cannot be shown.
        """
        ...


@runtime_checkable
class ConcurrentScorer(SizedScorer, Protocol):
    """A scorer that is best asked about several clips at once, each in a thread of its own."""

    @property
    def clips_at_once(self) -> int:
        """How many, at least 1."""
        ...

    def close(self) -> None:
        """Give up whatever is asked; whoever waits is told so by an error."""
        ...


@runtime_checkable
class SelectiveScorer(SizedScorer, Protocol):
    """A scorer that chooses for each prefix which of its frames it sees."""

    def frames_wanted(self, ends: Int64[np.ndarray, " prefixes"]) -> Int64[np.ndarray, " frames"]:
        """The frames that prefixes show, within the segment, ascending.

        Args:
            ends: the last frame of each prefix, ascending.
        """
        ...


def frames_wanted(
    scorer: object, scoring: ScoringConfig, length: int, *, fps: float
) -> Int64[np.ndarray, " frames"] | None:
    """The frames that a scorer chooses of a segment; None of one that sees all that is scheduled."""
    if not isinstance(scorer, SelectiveScorer):
        return None
    schedule = scoring.sample(length, fps=fps)
    lengths = prefix_lengths(length, schedule, count=scoring.prefix_count)
    return scorer.frames_wanted(last_frames(lengths, schedule))


def static_control(clip: Clip) -> Clip:
    """Show the first frame at every time: whatever still rises is length, not progress."""
    return replace(clip, shown=np.zeros_like(clip.shown))


def reversed_control(clip: Clip) -> Clip:
    """Play the clip backwards at the same times: a reward of progress has to fall."""
    return replace(clip, shown=clip.shown[::-1].copy())


def score_clip(
    clip: Clip,
    scorer: Scorer,
    controls: Sequence[str],
    count: int | None,
    *,
    asked: Mapping[str, str] | None = None,
) -> list[PrefixScores]:
    """Score prefixes of one clip, `count` or one per image, showing each video once.

    Args:
        clip: what is shown.
        scorer: who is asked.
        controls: "none" or any other, each once.
        count: prefixes, or None for one per image.
        asked: the other instruction of the controls that need one, "swapped" and "contrast1" to
            "contrast3".

    Returns:
        One record per control, in their order.

    Raises:
        EpisodeError: the clip cannot be scored.
        ValueError: a control has no other instruction to ask about.
    """
    segment = clip.segment
    videos = {"static": static_control, "reversed": reversed_control}
    questions = dict.fromkeys(("none", *videos), segment.instruction) | dict(asked or {})
    if lacking := [control for control in controls if control not in questions]:
        raise ValueError(f"{lacking[0]} must ask another instruction; it has none")
    schedule = clip.frame_indices if clip.scheduled is None else clip.scheduled
    lengths = prefix_lengths(segment.length, schedule, count=count)
    ends = last_frames(lengths, schedule)
    shown = np.searchsorted(clip.frame_indices, ends, side="right")
    # Prefixes that show the same images have the same reward: ask once.
    distinct, which = np.unique(shown, return_inverse=True)
    # All but these show the same video, so one pass asks their questions.
    passes = [
        [control for control in controls if control not in videos],
        *([control] for control in controls if control in videos),
    ]
    found: dict[str, PrefixScores] = {}
    for together in filter(None, passes):
        video = videos[together[0]](clip) if together[0] in videos else clip
        texts = [questions[control] for control in together]
        answers = scorer.score(video, distinct.tolist(), texts)
        for row, control in enumerate(together):
            found[control] = PrefixScores(
                segment=segment,
                control=control,
                prefix_length=lengths,
                frame_index=segment.start + ends,
                log_prob_true=answers.true[row][which].astype(np.float32),
                log_prob_false=answers.false[row][which].astype(np.float32),
                true_censored=_take(answers.true_censored, row, which),
                false_censored=_take(answers.false_censored, row, which),
                log_prob_success=_take(answers.success, row, which),
            )
    return [found[control] for control in controls]


def _take[T: np.ndarray](
    values: T | None, row: int, which: Int64[np.ndarray, " prefixes"]
) -> T | None:
    return None if values is None else values[row][which]


def check_controls(controls: Sequence[str]) -> None:
    """Refuse a control that does not exist.

    Raises:
        UserError: names it and suggests another.
    """
    for control in controls:
        if control not in CONTROLS:
            close = get_close_matches(control, CONTROLS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(
                f"`controls='{control}'` is not known; it takes: {', '.join(CONTROLS)}{hint}"
            )

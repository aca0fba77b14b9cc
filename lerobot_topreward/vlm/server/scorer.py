"""The scorer that asks servers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.vlm.identity import VlmIdentity
from lerobot_topreward.vlm.loading import load_prompting
from lerobot_topreward.vlm.server.answers import Question
from lerobot_topreward.vlm.server.client import Client, LostError, Patience
from lerobot_topreward.vlm.server.config import ServerConfig
from lerobot_topreward.vlm.server.exact import ExactMode
from lerobot_topreward.vlm.server.images import ImagesMode

_REQUESTS_OF_A_CLIP = 8  # those that can be counted on, to know how many clips keep servers busy


class Mode(Protocol):
    """How a clip is asked about."""

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width of every image as the server gets it, pixels."""
        ...

    def questions(
        self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]
    ) -> list[Question]:
        """One request per prefix and instruction, prefix by prefix."""
        ...


class ServerScorer:
    """Scores prefixes by asking servers; several threads may score clips at once."""

    def __init__(
        self,
        config: ServerConfig,
        identity: VlmIdentity,
        *,
        max_pixels: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            config: which servers, and how many requests at once.
            identity: from `identify_served`.
            max_pixels: per image.
            patience: how long servers are waited for.

        Raises:
            UserError: the checkpoint's processor, which the exact mode needs, cannot be loaded.
        """
        served = identity.served
        if served is None:
            raise ValueError("the identity must be that of a served checkpoint")
        self._mode: Mode = ImagesMode(served, max_pixels=max_pixels)
        if served.video == "exact":
            prompting = load_prompting(identity)
            self._mode = ExactMode(prompting, model=served.model, max_pixels=max_pixels)
        self._client = Client(config, patience=patience)

    @property
    def clips_at_once(self) -> int:
        """How many clips keep the servers busy."""
        return 1 + -(-len(self._client.urls) * self._client.concurrency // _REQUESTS_OF_A_CLIP)

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which a clip is shown; see `SizedScorer.shown_size`."""
        return self._mode.shown_size(clip)

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip; see `Scorer.score`."""
        return self._score(clip, prefixes, instructions)

    def _score(
        self,
        clip: Clip,
        prefixes: Sequence[int],
        instructions: Sequence[str],
        *,
        server: str | None = None,
    ) -> LogProbs:
        questions = self._mode.questions(clip, prefixes, instructions)
        answers = self._client.ask([each.make for each in questions], server=server)
        readings = [each.read(answer) for each, answer in zip(questions, answers, strict=True)]
        values, censored = (
            np.array(rows).reshape(len(prefixes), len(instructions), 2).transpose(2, 1, 0)
            for rows in (
                [(each.true, each.false) for each in readings],
                [(each.true_censored, each.false_censored) for each in readings],
            )
        )
        true, false = values.astype(np.float32)
        if not censored.any():
            return LogProbs(true=true, false=false)
        return LogProbs(
            true=true, false=false, true_censored=censored[0], false_censored=censored[1]
        )

    def try_out(self, longest: Clip) -> list[str]:
        """Ask every server about two images and about the longest clip, before there is more.

        In exact mode an answer also proves that the prompt was the built-in scorer's.

        Returns:
            What is to be said: servers that are left out.

        Raises:
            UserError: a server answers otherwise than it must; none is left.
        """
        images = len(longest.shown)
        first = min(2, images)
        short = replace(
            longest, shown=longest.shown[:first], frame_indices=longest.frame_indices[:first]
        )
        clips = (short, longest) if images > first else (short,)
        for url in self._client.urls:
            for clip in clips:
                try:
                    self._score(clip, [len(clip.shown)], [clip.segment.instruction], server=url)
                except LostError:
                    break
                except EpisodeError as error:
                    raise UserError(
                        f"`server={url}` fails the test before the first episode, with "
                        f"{len(clip.shown)} images: {error}"
                    ) from None
        lost = self._client.lost
        if len(lost) == len(self._client.urls):
            raise UserError(f"no server is left: {'; '.join(lost.values())}")
        return [f"left out: {why}" for why in lost.values()]

    def close(self) -> None:
        """Give up whatever is asked; whoever waits gets `CancelledError`."""
        self._client.close()

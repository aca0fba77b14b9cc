"""Any reward model of LeRobot's: asked about one prefix after another, with its own code."""

from collections.abc import Callable, Sequence
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.vlm.one_pass import is_out_of_memory
from lerobot_topreward.vlm.reward_model.progress import log_probs

_SLACK = 1e-3  # by which rounding may carry a value out of its range


class PrefixRewardScorer:
    """One call of a reward model per prefix and instruction."""

    def __init__(
        self,
        value: Callable[[dict[str, Any]], torch.Tensor],
        preprocess: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        name: str,
        camera: str,
        shows_video: bool,
        log_probs: bool = False,
        success: bool = False,
    ) -> None:
        """Wrap a model.

        Args:
            value: of a batch of one: a progress of 0..1, or what the next options say.
            preprocess: its own pre-processor.
            name: of the model, for messages.
            camera: the feature key that it reads images from.
            shows_video: it takes all images of a prefix, (1, time, 3, height, width), else the
                last, (1, 3, height, width); float32, 0..1.
            log_probs: the value is log P(True), nats.
            success: the value is also the probability of success.
        """
        self.value = value
        self.preprocess = preprocess
        self.name = name
        self.camera = camera
        self.shows_video = shows_video
        self.log_probs = log_probs
        self.success = success

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width as it is given a clip; its own code may resize that."""
        return clip.frames.shape[1], clip.frames.shape[2]

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip; see `Scorer.score`."""
        values = np.array(
            [
                [self._ask(clip.frames[clip.shown[:shown]], text) for shown in prefixes]
                for text in instructions
            ]
        )
        low, high = (-np.inf, 0.0) if self.log_probs else (0.0, 1.0)
        if not np.isfinite(values).all():
            raise EpisodeError(f"the values of reward model {self.name} are not finite")
        if values.min() < low - _SLACK or values.max() > high + _SLACK:
            rule = "a log-probability" if self.log_probs else "a progress of 0..1"
            raise UserError(
                f"`reward_model={self.name}` must give {rule}; it gave values of "
                f"{values.min():.3g} to {values.max():.3g}, of which no label can be made"
            )
        values = np.clip(values, low, high)
        if self.log_probs:
            # What is not True is False, as with a progress; log(1 - e^x) where it is exact.
            rest = log_probs(np.exp(values))
            return LogProbs(true=values.astype(np.float32), false=rest.false)
        return log_probs(values, values if self.success else None)

    def _ask(self, frames: UInt8[np.ndarray, "shown height width 3"], instruction: str) -> float:
        images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        shown = images[None] if self.shows_video else images[-1:]
        try:
            with torch.inference_mode():
                batch = self.preprocess({self.camera: shown, "task": [instruction]})
                answer = self.value(batch)
        except Exception as error:  # it is somebody else's code, which may raise anything
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise EpisodeError(
                    f"out of memory with {len(frames)} images; try a smaller `sample_fps`"
                ) from None
            reason = shorten(str(error), 400) or type(error).__name__
            raise EpisodeError(f"reward model {self.name} fails: {reason}") from error
        if answer.numel() != 1:
            raise UserError(
                f"`reward_model={self.name}` must give one value for one video; it gave "
                f"{tuple(answer.shape)}"
            )
        return float(answer)

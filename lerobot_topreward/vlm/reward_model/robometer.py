"""Robometer: every prefix shows as many images, so all are tokens of one row and go in batches.

LeRobot's `compute_robometer_progress` shows ``linspace(0, t, 8)`` of the frames up to t and asks
for each t anew: the images through the vision tower, 8 for each prefix, and the answer through the
head of the whole vocabulary. Here every distinct image goes through its processor and through the
vision tower once, and only the two heads that are read are computed. The text is the same for all
prefixes, since all show as many images of one size.
https://github.com/huggingface/lerobot/blob/main/src/lerobot/rewards/robometer/compute_rabc_weights.py
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from lerobot.rewards.robometer.modeling_robometer import (
    RobometerRewardModel,
    decode_progress_outputs,
)
from lerobot.rewards.robometer.processor_robometer import RobometerEncoderProcessorStep
from torch import Tensor

from lerobot_topreward.errors import EpisodeError
from lerobot_topreward.records import Clip, LogProbs
from lerobot_topreward.vlm.identity import ARCHITECTURES
from lerobot_topreward.vlm.one_pass import score_within_memory
from lerobot_topreward.vlm.reward_model.progress import log_probs

IMAGES = 8  # of a prefix, where the configuration does not say
_CHUNK_TOKENS = 4096

# transformers says at every call that LeRobot gives options of its template in an old way.
logging.getLogger("transformers.processing_utils").addFilter(
    lambda record: "`processor_kwargs`" not in record.getMessage()
)


@dataclass(frozen=True, slots=True)
class _Images:
    """What the language model is given of distinct images."""

    features: Float[Tensor, "images tokens width"]
    deep: list[Float[Tensor, "images tokens width"]]  # added to its first layers
    grid: Int64[Tensor, "1 3"]  # of patches, of every image


class RobometerScorer:
    """Score all prefixes of a clip in batches, as LeRobot's model does one by one."""

    def __init__(
        self,
        model: RobometerRewardModel,
        encoder: RobometerEncoderProcessorStep,
        *,
        chunk_tokens: int | None = None,
    ) -> None:
        """Wrap a checkpoint.

        Args:
            model: with a Qwen3-VL backbone and a progress token after each image.
            encoder: the step of its pre-processor that makes tokens.
            chunk_tokens: tokens per forward, which bounds memory; halved when it runs out.
        """
        self.model = model
        self.encoder = encoder
        self.images = model.config.max_frames or IMAGES
        self.chunk_tokens = chunk_tokens or _CHUNK_TOKENS

    def shown_size(self, clip: Clip) -> tuple[int, int]:
        """Height and width at which a clip is shown; see `SizedScorer.shown_size`."""
        encoded = self._encode([(clip.frames[:1], "")])
        _, rows, columns = encoded["image_grid_thw"][0].tolist()
        patch = self.model.model.config.vision_config.patch_size
        return rows * patch, columns * patch

    def frames_wanted(self, ends: Int64[np.ndarray, " prefixes"]) -> Int64[np.ndarray, " frames"]:
        """The frames that prefixes show; see `SelectiveScorer.frames_wanted`."""
        return np.unique(np.concatenate([self._spread(int(end)) for end in ends]))

    def _spread(self, end: int) -> Int64[np.ndarray, " images"]:
        return np.linspace(0, end, self.images).round().astype(np.int64)

    def score(self, clip: Clip, prefixes: Sequence[int], instructions: Sequence[str]) -> LogProbs:
        """Score prefixes of a clip; see `Scorer.score`."""
        # The images nearest to those that LeRobot would show: the very same where the clip was read
        # for this scorer.
        times = clip.frame_indices
        picked = np.stack([_nearest(times[:n], self._spread(int(times[n - 1]))) for n in prefixes])
        distinct, which = np.unique(clip.shown[picked], return_inverse=True)
        which = which.reshape(picked.shape)
        return score_within_memory(
            self,
            lambda: self._score(clip.frames[distinct], which, instructions),
            failure=f"out of memory with {len(distinct)} images, even one prefix at a time; try "
            "`prefixes=15` or a smaller `sample_fps`",
        )

    def _score(
        self,
        frames: UInt8[np.ndarray, "distinct height width 3"],
        which: Int64[np.ndarray, "prefixes images"],
        instructions: Sequence[str],
    ) -> LogProbs:
        images = self._look(frames)
        answers = np.empty((2, len(instructions), len(which)), dtype=np.float64)
        for row, instruction in enumerate(instructions):
            # Which images these are does not matter: only the text is used.
            text = self._encode([(frames[which[0]], instruction)])
            answers[:, row] = self._ask(text, images, torch.from_numpy(which))
        if not np.isfinite(answers).all():
            raise EpisodeError("the reward model's values are not finite")
        # Its published code clamps progress, too: a sum of ten rounded shares can be 1.0000001.
        return log_probs(np.clip(answers[0], 0, 1), answers[1])

    def _encode(self, samples: list[tuple[UInt8[np.ndarray, "shown height width 3"], str]]) -> Any:
        """Make tokens and pixels of images and a task, with LeRobot's own code."""
        with warnings.catch_warnings():
            # It names a largest length that its own way of padding does not use.
            warnings.filterwarnings("ignore", "`max_length` is ignored", UserWarning)
            return self.encoder.encode_samples(samples)

    def _look(self, frames: UInt8[np.ndarray, "distinct height width 3"]) -> _Images:
        """Show distinct images to the vision tower, as many at a time as a prefix has."""
        backbone = self.model.model.model
        device = backbone.device
        features: list[Tensor] = []
        deep: list[list[Tensor]] = []
        grid = None
        for first in range(0, len(frames), self.images):
            some = frames[first : first + self.images]
            encoded = self._encode([(some, "")])
            grid = encoded["image_grid_thw"][:1].to(device)
            found = backbone.get_image_features(
                encoded["pixel_values"].to(device), encoded["image_grid_thw"].to(device)
            )
            features.append(torch.stack(list(found.pooler_output)))
            deep.append([part.unflatten(0, (len(some), -1)) for part in found.deepstack_features])
        assert grid is not None  # a clip has images
        levels = [torch.cat(list(parts)) for parts in zip(*deep, strict=True)]
        return _Images(torch.cat(features), levels, grid)

    def _ask(
        self, text: Any, images: _Images, which: Int64[Tensor, "prefixes images"]
    ) -> Float[np.ndarray, "2 prefixes"]:
        """Progress and probability of success after the last image of every prefix."""
        backbone = self.model.model.model
        device = backbone.device
        tokens, kinds = (text[name].to(device) for name in ("input_ids", "mm_token_type_ids"))
        position, _ = backbone.get_rope_index(
            tokens, kinds, image_grid_thw=images.grid.expand(self.images, 3)
        )
        is_image = tokens == backbone.config.image_token_id
        last = int((tokens[0] == text["prog_token_id"]).nonzero()[-1])
        words = backbone.get_input_embeddings()(tokens)
        found = []
        for part in which.split(max(1, self.chunk_tokens // tokens.shape[1])):
            rows, part = len(part), part.to(device)
            shown = is_image.expand(rows, -1)
            inputs = words.repeat(rows, 1, 1)
            inputs[shown] = images.features[part].flatten(0, 2).to(inputs.dtype)
            hidden = backbone.language_model(
                inputs_embeds=inputs,
                position_ids=position.expand(3, rows, -1),
                visual_pos_masks=shown,
                deepstack_visual_embeds=[level[part].flatten(0, 2) for level in images.deep],
                use_cache=False,
            ).last_hidden_state[:, last]
            decoded = decode_progress_outputs(
                self.model.progress_head(hidden)[:, None],
                self.model.success_head(hidden),
                is_discrete_mode=self.model.config.use_discrete_progress,
            )
            found.append(np.array([decoded["progress_pred"], decoded["success_probs"]])[..., 0])
        return np.concatenate(found, axis=1)


def find_encoder(preprocess: Any, model: RobometerRewardModel) -> Any:
    """Find the step that makes tokens; None where the model is not asked as this module does."""
    config = model.config
    if (
        model.model.config.model_type not in ARCHITECTURES
        or not config.use_per_frame_progress_token
    ):
        return None
    steps = [each for each in preprocess.steps if isinstance(each, RobometerEncoderProcessorStep)]
    return steps[0] if steps else None


def _nearest(
    times: Int64[np.ndarray, " shown"], wanted: Int64[np.ndarray, " images"]
) -> Int64[np.ndarray, " images"]:
    """Find the place of the time that is nearest to each wanted one; times ascend."""
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(wanted - times[before] < times[after] - wanted, before, after)

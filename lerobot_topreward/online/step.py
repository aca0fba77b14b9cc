"""Rewards of a VLM in the transitions of LeRobot's HIL-SERL environment.

Importing this module registers the step `topreward_online_reward` with LeRobot.
"""

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.lerobot_types import EnvTransition, TransitionKey
from lerobot.processor.pipeline import ProcessorStep, ProcessorStepRegistry
from lerobot.teleoperators.utils import TeleopEvents
from torch import Tensor

from lerobot_topreward.errors import UserError
from lerobot_topreward.online.background import BackgroundScorer, Newest
from lerobot_topreward.online.scorer import Beyond, OnlineScorer, check_beyond
from lerobot_topreward.scoring.run import load_scorer
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.storage.reader import open_labelled
from lerobot_topreward.vlm.identity import VlmConfig

Reward = Literal["progress", "gain", "success"]
INFO = "topreward"  # where a transition's info says more


@ProcessorStepRegistry.register("topreward_online_reward")
@dataclass
class OnlineRewardStep(ProcessorStep):
    """Write the newest reward that is known, and success, into each transition.

    A transition's value is the progress of the newest finished score or, without a reference, its
    P(True): 0..1. Scores are made in a thread of their own, so that the loop never waits; until the
    first one is there, reward is 0. ``info["topreward"]`` has the answers, their age and how many
    images were skipped.
    """

    instruction: str  # what is to be done
    camera: str | None = None  # key of the observation or its last part; None where there is one
    fps: float = 10.0  # transitions per second of the control loop
    sample_fps: float = 2.0  # images shown per second, as `label` shows them
    vlm: str = "Qwen/Qwen3-VL-8B-Instruct"  # see `VlmConfig`, as are the following three
    vlm_revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_pixels: int | None = None  # per image
    max_images: int = 200  # see `OnlineScorer`, as is `beyond`
    beyond: Beyond = "thin"
    reference: str | None = None  # labeled dataset, a folder or Hub id, that says what progress is
    # progress: the value. gain: what it gained since the last transition, so that an episode adds
    # up to where it ended and waiting earns nothing. success: 1 once it is reached, else 0.
    reward: Reward = "progress"
    success_threshold: float = 0.9  # value, 0..1
    success_steps: int = 3  # scores in a row at or above it
    terminate_on_success: bool = True
    scorer: OnlineScorer | None = field(default=None, repr=False)  # instead of loading one

    def __post_init__(self) -> None:
        """Check the options, load the VLM and start the thread.

        Raises:
            UserError: an option is out of its range, or see `load_scorer` and `OnlineScorer`.
        """
        self._check()
        if self.scorer is None:
            reference = None
            if self.reference is not None:
                root = Path(self.reference).expanduser()
                local = root.is_dir()
                reference = open_labelled(
                    repo_id=None if local else self.reference,
                    root=root if local else None,
                    revision=None,
                )
            vlm = VlmConfig(
                vlm=self.vlm, vlm_revision=self.vlm_revision, device=self.device, dtype=self.dtype
            )
            self.scorer = OnlineScorer(
                load_scorer(vlm, ScoringConfig(max_pixels=self.max_pixels)),
                self.instruction,
                max_images=self.max_images,
                beyond=self.beyond,
                reference=reference,
            )
        self.background = BackgroundScorer(self.scorer)
        self.reset()

    def _check(self) -> None:
        for name in ("fps", "sample_fps"):
            if not getattr(self, name) > 0:
                raise UserError(f"`{name}` must be > 0; got {getattr(self, name)}")
        if not 0 < self.success_threshold <= 1:
            raise UserError(
                f"`success_threshold` must be > 0 and <= 1; got {self.success_threshold}"
            )
        if self.success_steps < 1:
            raise UserError(f"`success_steps` must be at least 1; got {self.success_steps}")
        if self.reward not in get_args(Reward):
            raise UserError(
                f"`reward` must be one of {', '.join(get_args(Reward))}; got '{self.reward}'"
            )
        check_beyond(self.beyond)

    def reset(self) -> None:
        """Begin another episode."""
        self.background.reset()
        self._frame = 0  # transitions of this episode
        self._sampled = 0  # images of it that were offered
        self._counted = 0  # images of the last score that was counted
        self._streak = 0  # scores in a row at or above the threshold
        self._success = False  # stays for the episode
        self._value: float | None = None

    def close(self) -> None:
        """End the thread."""
        self.background.close()

    def __call__(self, transition: EnvTransition) -> EnvTransition:
        """Offer the image where one is due, and write what is known.

        Raises:
            ValueError: the observation has no such image.
        """
        new = transition.copy()
        # The schedule of `sample_frames`, frame by frame.
        if self._frame == round(self._sampled * max(self.fps / self.sample_fps, 1.0)):
            observation = new.get(TransitionKey.OBSERVATION) or {}
            image = to_rgb(find_image(observation, self.camera))
            self.background.offer(image, self._frame / self.fps)
            self._sampled += 1
        self._frame += 1
        newest = self.background.newest()
        before = self._value
        info = dict(new.get(TransitionKey.INFO) or {})
        self._count(newest)
        success = self._success or bool(info.get(TeleopEvents.SUCCESS, False))
        value = self._value or 0.0
        gain = 0.0 if before is None else value - before
        rewards: dict[Reward, float] = {
            "progress": value,
            "gain": gain,
            "success": float(success),
        }
        new[TransitionKey.REWARD] = rewards[self.reward]
        new[TransitionKey.DONE] = bool(new.get(TransitionKey.DONE, False)) or (
            success and self.terminate_on_success
        )
        info[TeleopEvents.SUCCESS] = success
        info[INFO] = self._describe(newest)
        new[TransitionKey.INFO] = info
        return new

    def _count(self, newest: Newest | None) -> None:
        """Count a score once."""
        if newest is not None and newest.score.images != self._counted:
            score = newest.score
            self._counted = score.images
            progress = score.progress
            self._value = math.exp(score.log_prob_true) if progress is None else progress
            self._streak = self._streak + 1 if self._value >= self.success_threshold else 0
            self._success |= self._streak >= self.success_steps

    def _describe(self, newest: Newest | None) -> dict[str, Any]:
        known: dict[str, Any] = {"failure": self.background.failure}
        if newest is not None:
            score = newest.score
            known |= {
                "value": self._value,
                "age": newest.age,
                "images": score.images,
                "skipped": newest.skipped,
                "log_prob_true": score.log_prob_true,
                "log_prob_false": score.log_prob_false,
                "milliseconds": score.milliseconds,
            }
        return known

    def get_config(self) -> dict[str, Any]:
        """The options, from which the same step can be made."""
        return {
            item.name: getattr(self, item.name) for item in fields(self) if item.name != "scorer"
        }

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Leave the features as they are."""
        return features


def find_image(observation: dict[str, Any], camera: str | None) -> Any:
    """Find a camera's image in an observation.

    Args:
        observation: of a transition.
        camera: its key or the last part of it; None where there is but one.

    Raises:
        ValueError: there is no such image, or there are several.
    """
    images = [name for name in observation if "image" in name]
    found = [name for name in images if camera in (None, name, name.rpartition(".")[2])]
    if len(found) != 1:
        wanted = "the one image" if camera is None else f"`camera='{camera}'`"
        raise ValueError(
            f"{wanted} must be in the observation; it has {', '.join(images) or 'no image'}"
        )
    return observation[found[0]]


def to_rgb(image: Tensor | np.ndarray) -> np.ndarray:
    """Copy an observation's image as a VLM takes it.

    Args:
        image: (height, width, 3) or (3, height, width), with or without a batch dimension of one;
            uint8, or float in 0..1.

    Returns:
        uint8, (height, width, 3).

    Raises:
        ValueError: it has another shape.
    """
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[2]):
        raise ValueError(
            f"an image must be (height, width, 3) or (3, height, width); got {array.shape}"
        )
    if array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if np.issubdtype(array.dtype, np.floating):
        array = np.round(255 * np.clip(array, 0, 1))
    return np.array(array, dtype=np.uint8, order="C")

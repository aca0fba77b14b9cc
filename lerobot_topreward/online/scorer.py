"""Score an episode image by image, while it happens."""

import math
import time as clock
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lerobot_topreward.errors import EpisodeError, UserError
from lerobot_topreward.online.calibration import Calibration, calibrate
from lerobot_topreward.scoring.scorer import Scorer
from lerobot_topreward.storage.reader import LabelledDataset
from lerobot_topreward.vlm.prompts import require_text

if TYPE_CHECKING:
    from lerobot_topreward.vlm.online import GrowingVideo

Beyond = Literal["refuse", "window", "thin"]


@dataclass(frozen=True, slots=True)
class OnlineScore:
    """What the VLM says of an episode up to one image."""

    images: int  # added since the episode began
    shown: int  # of them to the VLM: fewer once there were more than ``max_images``
    time: float  # of the last one, seconds
    log_prob_true: float  # nats, <= 0
    log_prob_false: float  # nats, <= 0
    progress: float | None  # 0..1 on the scale of the reference; None without one
    milliseconds: float  # that this image took


@dataclass(frozen=True, slots=True)
class Budget:
    """What an episode of ``max_images`` images takes."""

    size: tuple[int, int]  # height and width at which images are shown, pixels
    cache_bytes: int  # of keys and values, set aside at the first image; twice that while one
    # image makes room for the following ones, unless more than ``max_images`` are refused


def check_beyond(beyond: str) -> None:
    """Refuse what is no value of `beyond`.

    Raises:
        UserError: it is none.
    """
    if beyond not in get_args(Beyond):
        raise UserError(f"`beyond` must be one of {', '.join(get_args(Beyond))}; got '{beyond}'")


class OnlineScorer:
    """Scores an episode after each new image, for the work of one image whatever came before.

    Each score is that of `score_frames` for the images so far, shown at the size that `max_images`
    images would have. Beyond `max_images` it is that score for those of them that are still shown.
    """

    def __init__(
        self,
        scorer: Scorer,
        instruction: str,
        *,
        max_images: int = 200,
        beyond: Beyond = "refuse",
        reference: LabelledDataset | None = None,
    ) -> None:
        """Begin an episode.

        Args:
            scorer: from `load_scorer`, with a VLM in this process.
            instruction: what may have been completed.
            max_images: of an episode, at least 2. Images are shown smaller the more there may be.
            beyond: what happens with more images than that. "refuse" refuses them, "window" forgets
                the first half of those that are shown, "thin" every second one, and from then on
                keeps only every second, fourth, ... new one. The newest is always shown. Making
                room takes the time of half of `max_images`, once in as many images.
            reference: dataset, labeled with the same VLM, by whose scores progress is measured.

        Raises:
            UserError: the scorer has no VLM in this process, an option is out of its range, or the
                reference has no scores of this VLM and instruction.
        """
        from lerobot_topreward.vlm.one_pass import OnePassScorer
        from lerobot_topreward.vlm.online import loaded_revision
        from lerobot_topreward.vlm.per_prefix import PerPrefixScorer

        if isinstance(scorer, PerPrefixScorer):
            scorer = OnePassScorer(scorer.vlm, max_pixels=scorer.max_pixels)
        if not isinstance(scorer, OnePassScorer):
            raise UserError(
                "`scorer` must be a VLM in this process, whose keys and values can be kept; got a "
                f"{type(scorer).__name__}. Make it with load_scorer(VlmConfig(...))"
            )
        require_text(instruction, what="`instruction`", fix="Leave it out.")
        if max_images < 2:
            raise UserError(f"`max_images` must be at least 2; got {max_images}")
        check_beyond(beyond)
        self.instruction, self.max_images, self.beyond = instruction, max_images, beyond
        self.calibration: Calibration | None = None
        if reference is not None:
            revision = loaded_revision(scorer.vlm)
            self.calibration = calibrate(reference, instruction, vlm_revision=revision)
        self._scorer = scorer
        self._video: GrowingVideo | None = None
        self._shape: tuple[int, ...] = ()  # of the images that the video is made for
        self.reset()

    def reset(self) -> None:
        """Begin another episode; its images may have another size."""
        self._images = 0
        self._time = -math.inf
        self._stride = 1  # every so many images one is kept
        if self._video is not None:
            self._video.reset()

    def budget(self, height: int, width: int) -> Budget:
        """Say what an episode of `max_images` images of this height and width takes.

        Raises:
            EpisodeError: such images cannot be shown to this model.
        """
        video = self._make_video((height, width, 3))
        return Budget(video.size, video.cache_bytes)

    def add(self, image: np.ndarray, time: float) -> OnlineScore:
        """Show one more image and ask.

        Args:
            image: RGB, uint8, (height, width, 3), as large as the others of the episode.
            time: when it was taken, seconds since the episode began; later than the one before.

        Raises:
            EpisodeError: the image or its time is not as above, there are too many images, memory
                runs out, or the answer is not finite. Nothing has changed: the next image may come.
        """
        began = clock.perf_counter()
        shape = self._check(image, time)
        video = self._video
        if video is None or shape != self._shape:
            video = self._make_video(shape)
        stride = self._stride
        if len(video) == self.max_images:
            stride, video = self._make_room(video)
        keep = self._images % stride == 0
        true, false = video.ask(image, float(time), keep=keep)
        # Nothing failed: this is the new state.
        self._video, self._shape, self._stride = video, shape, stride
        self._images, self._time = self._images + 1, float(time)
        return OnlineScore(
            images=self._images,
            shown=len(video) + (not keep),
            time=self._time,
            log_prob_true=true,
            log_prob_false=false,
            progress=self.calibration and self.calibration.progress(true, false),
            milliseconds=1000 * (clock.perf_counter() - began),
        )

    def _check(self, image: np.ndarray, time: float) -> tuple[int, ...]:
        """Refuse what cannot be the next image of this episode; return its shape."""
        from lerobot_topreward.vlm.online import LONGEST

        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            found = getattr(image, "dtype", type(image).__name__)
            raise EpisodeError(f"an image must be a numpy array of uint8; got {found}")
        if image.ndim != 3 or image.shape[2] != 3:
            raise EpisodeError(f"an image must be (height, width, 3), RGB; got {image.shape}")
        if self._images and image.shape != self._shape:
            raise EpisodeError(
                f"the images of an episode must be of one size; got {image.shape} after "
                f"{self._shape}; reset() begins another episode"
            )
        if not math.isfinite(time):
            raise EpisodeError(f"time must be finite; got {time} s")
        if not 0 <= time <= LONGEST:
            raise EpisodeError(
                f"time must be 0 to {LONGEST} s, counted from the episode's beginning; got {time} s"
            )
        if time <= self._time:
            raise EpisodeError(
                f"time must go forward; got {time} s after {self._time} s; reset() begins another "
                "episode"
            )
        return image.shape

    def _make_video(self, shape: tuple[int, ...]) -> "GrowingVideo":
        from lerobot_topreward.vlm.online import GrowingVideo

        return GrowingVideo(
            self._scorer,
            self.instruction,
            height=shape[0],
            width=shape[1],
            max_images=self.max_images,
        )

    def _make_room(self, video: "GrowingVideo") -> tuple[int, "GrowingVideo"]:
        """Choose which images are still shown; how many new ones are left out follows."""
        if self.beyond == "refuse":
            raise EpisodeError(
                f"an episode has at most {self.max_images} images; raise `max_images`, or choose "
                "`beyond='thin'` or `beyond='window'`"
            )
        if self.beyond == "window":
            return 1, video.select(range(len(video) - len(video) // 2, len(video)))
        return 2 * self._stride, video.select(range(0, len(video), 2))

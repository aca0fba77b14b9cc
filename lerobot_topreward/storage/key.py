"""What decides a raw score: the options of a user, and with a pinned VLM the key of the store."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from pydantic import TypeAdapter

from lerobot_topreward.data.schedule import sample_frames
from lerobot_topreward.errors import UserError
from lerobot_topreward.vlm.identity import VlmIdentity
from lerobot_topreward.vlm.prompts import question


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """What a VLM is shown of an episode, and when it is asked."""

    camera: str | None = None  # feature key or its last part; by default the third-person one
    instruction: str | None = None  # overrides the dataset's own tasks
    sample_fps: float = 2.0  # images shown per second of the dataset's clock, Hz
    prefixes: Literal["every"] | int = "every"  # one per shown image, or K per segment (paper: 15)
    final_frame: bool = True  # also show the last frame, which the paper's schedule can miss
    max_images: int | None = None  # per segment, evenly thinned: long videos are shown larger
    max_pixels: int | None = None  # per image; the checkpoint's own budget if not given
    engine: Literal["one-pass", "per-prefix"] = "one-pass"  # per-prefix: one slow forward each

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        for name in ("sample_fps", "max_pixels"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"`{name}` must be > 0; got {value}")
        if self.max_images is not None and self.max_images < 2:
            raise UserError(
                f"`max_images` must be at least 2, the first and the last; got {self.max_images}"
            )
        if isinstance(self.prefixes, int) and self.prefixes < 1:
            raise UserError(f"`prefixes` must be 'every' or a number >= 1; got {self.prefixes}")

    def sample(self, frames: int, *, fps: float) -> Int64[np.ndarray, " sampled"]:
        """Choose which frames of a segment are shown; see `sample_frames`.

        Args:
            frames: in the segment, >= 1.
            fps: the dataset's clock, Hz.
        """
        return sample_frames(
            frames,
            fps=fps,
            sample_fps=self.sample_fps,
            final_frame=self.final_frame,
            max_images=self.max_images,
        )

    @property
    def prefix_count(self) -> int | None:
        """K, or None for every shown image."""
        return None if self.prefixes == "every" else self.prefixes

    @property
    def schedule(self) -> str:
        """Which frames are shown and when the VLM is asked, in words."""
        last = " and the last frame" if self.final_frame else ""
        prefixes = "every one of them" if self.prefixes == "every" else f"{self.prefixes} prefixes"
        most = "" if self.max_images is None else f", at most {self.max_images}"
        return f"{self.sample_fps:g} per second{last}{most}; asked after {prefixes}"


# The order of the fields as they are stored in a run.json, a sidecar and meta/info.json.
_STORED = (
    "vlm", "vlm_revision", "dtype", "quantize", "engine", "prompt", "camera", "instruction",
    "sample_fps", "final_frame", "prefixes", "max_pixels", "max_images", "head",
)  # fmt: skip
_ADDED = ("max_images", "head")  # None in a key from before them, which has the same digest
# Only where a server gave the scores: other stores, older ones among them, do not have them.
_SERVED = ("server", "server_model", "server_video", "template")
_REWARDED = ("reward_model",)  # only where one of LeRobot's reward models gave them


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreKey(ScoringConfig):
    """Everything that decides a raw score: a configuration with its camera and its VLM pinned."""

    camera: str  # feature key  # pyright: ignore[reportGeneralTypeIssues]
    vlm: str  # Hub id, or a folder's own name
    vlm_revision: str  # Hub commit, or a digest of the folder's files
    dtype: str
    quantize: str | None = None
    prompt: str  # of an empty instruction
    head: Literal["float32"] | None = None  # what the answers are read in; None: in the dtype
    server: str | None = None  # kind and version of the server, "vllm 0.32.0"
    server_model: str | None = None  # the model's name there
    server_video: Literal["exact", "images"] | None = None
    template: Literal["paper", "chat"] | None = None
    reward_model: str | None = None  # its type; its checkpoint stands where a VLM's would

    @property
    def judge(self) -> str:
        """Who gave the scores, in words."""
        return self.vlm if self.reward_model is None else f"{self.vlm} ({self.reward_model})"

    @property
    def precision(self) -> str:
        """The dtype whose steps the scores have."""
        # A reward model's progress is made of its logits in float32.
        return "float32" if self.reward_model is not None else self.head or self.dtype

    @classmethod
    def pin(cls, scoring: ScoringConfig, vlm: VlmIdentity, *, camera: str) -> "ScoreKey":
        """Pin a configuration to a checkpoint, this version's prompt and a camera's feature key."""
        options = {item.name: getattr(scoring, item.name) for item in fields(ScoringConfig)}
        if (served := vlm.served) is not None:
            options["server"], options["server_model"] = served.server, served.model
            options["server_video"], options["template"] = served.video, served.template
        ours = vlm.served is None and vlm.reward_model is None
        return cls(
            **{**options, "camera": camera},
            vlm=vlm.name,
            vlm_revision=vlm.revision,
            dtype=vlm.dtype,
            quantize=vlm.quantize,
            prompt=question("") if vlm.reward_model is None else "",  # its own code asks
            head="float32" if ours and vlm.dtype != "float32" else None,
            reward_model=vlm.reward_model,
        )

    @classmethod
    def from_json(cls, stored: Any) -> "ScoreKey":
        """Read a stored key; whoever wrote it is a stranger.

        Raises:
            ValueError: it is none, or of another version.
        """
        values: dict[str, Any] = dict.fromkeys(_ADDED)
        if isinstance(stored, Mapping):
            values |= stored
        if values.keys() not in ({*_STORED, *more} for more in ((), _SERVED, _REWARDED)):
            raise ValueError(f"a key has the fields {', '.join(_STORED)}; got {stored!r:.200}")
        for more in (_SERVED, _REWARDED):
            if any(name in values and not values[name] for name in more):
                raise ValueError(f"a key has all or none of {', '.join(more)}; one is empty")
        if values["prefixes"] is None:
            values["prefixes"] = "every"
        try:
            TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except (UserError, RecursionError) as error:
            raise ValueError(str(error)) from None
        return cls(**values)  # a number as it was written: 2 and 2.0 have different digests

    def to_json(self) -> dict[str, Any]:
        """The key as it is stored, every shown image being no number of prefixes."""
        values = {**asdict(self), "prefixes": self.prefix_count}
        more = (*(_SERVED if self.server else ()), *(_REWARDED if self.reward_model else ()))
        return {name: values[name] for name in (*_STORED, *more)}

    def digest(self) -> str:
        """A short hash that names the store's folder."""
        values = {
            name: value
            for name, value in self.to_json().items()
            if value is not None or name not in _ADDED
        }
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

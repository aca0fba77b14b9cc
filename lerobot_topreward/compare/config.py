"""What the compare command is asked for."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Literal

from lerobot_topreward.errors import UserError
from lerobot_topreward.storage.key import ScoringConfig
from lerobot_topreward.vlm.identity import VlmConfig, find_folder
from lerobot_topreward.vlm.reward_model.config import RewardModelConfig
from lerobot_topreward.vlm.server.config import ServerConfig, Video

_BITS = re.compile(r"(.+):(4bit|8bit)")
_REWARD = ("reward_model", "reward_path")
_REWARDED = re.compile(r"([\w.:-]+)=(.*)")
_SERVED = re.compile(r"(.+?)@(https?://.+)")
_FORMS = (
    "a judge is a checkpoint (a folder, OWNER/NAME or builtin:so101-demo; with :4bit or :8bit it is "
    "quantized), NAME@http://HOST:8000 (a model at a server) or TYPE=PATH (a reward model of LeRobot)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleScoring(ScoringConfig):
    """What every judge is shown, and when it is asked: the paper's prefixes unless told otherwise."""

    prefixes: Literal["every"] | int = 15  # K per segment, or one per shown image


@dataclass(frozen=True, slots=True)
class Judge:
    """Who is asked: a checkpoint, in this process or at a server, or a reward model."""

    name: str  # as it was given
    vlm: VlmConfig
    server: ServerConfig | None = None
    reward_model: RewardModelConfig | None = None

    @property
    def options(self) -> dict[str, str]:
        """The options by which other commands are told to ask it."""
        if self.reward_model is not None:
            given = {name: getattr(self.reward_model, name) for name in _REWARD}
            return {name: value for name, value in given.items() if value is not None}
        options = {"vlm": self.vlm.vlm}
        if self.vlm.quantize is not None:
            options["quantize"] = self.vlm.quantize
        if self.server is not None:
            options["server"] = self.server.urls[0]
        return options


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare judges on a sample of a dataset, labeled or not, and say which one to use.

    Each is asked about the same frames of the same episodes, of their first frame repeated and of
    the video backwards. Their scores are kept where label finds them.
    """

    repo_id: str | None = None  # dataset on the Hub, or recorded under $HF_LEROBOT_HOME
    root: Path | None = None  # dataset in a local folder
    revision: str | None = None  # branch, tag or commit on the Hub

    # Checkpoints (folder or OWNER/NAME, perhaps with :4bit), NAME@URL of a server, TYPE=PATH of a
    # reward model.
    judges: tuple[str, ...] = ()
    sample: int = 10  # episodes, spread over tasks and, where they are known, outcomes
    success_file: Path | None = None  # CSV episode_index,success: which episodes succeeded
    scoring: SampleScoring = field(default_factory=SampleScoring)

    device: str = "auto"  # of checkpoints here: cuda, cuda:1, mps or cpu
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # as of label
    device_map: Literal["auto"] | None = None  # auto spreads a model over all GPUs

    server_video: Video | None = None  # as of label; by default exact where the server is vLLM
    server_key_env: str | None = None  # environment variable that holds the servers' key
    concurrency: int = 16  # requests in flight, per server

    output: Path | None = None  # label's output folder; <dataset>_topreward if not given
    json: bool = False  # print everything as JSON instead of a table

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before anything is opened."""
        if len(self.judges) > len(ascii_uppercase):
            raise UserError(f"`judges` names {len(self.judges)}; the table has room for 26")
        if self.sample < 1:
            raise UserError(f"`sample` must be at least 1 episode; got {self.sample}")
        judges = [self._read_judge(name) for name in self.judges]
        if twice := [name for name in self.judges if self.judges.count(name) > 1]:
            raise UserError(f"`judges` names {twice[0]} twice; name each once")
        served = [judge for judge in judges if judge.server is not None]
        if served and self.scoring.engine != "one-pass":
            raise UserError(
                f"`engine={self.scoring.engine}` is about a VLM in this process; {served[0].name} is "
                "at a server: leave out one of them"
            )
        if judges and not served:
            for name in ("server_video", "server_key_env", "concurrency"):
                value = getattr(self, name)
                if value != getattr(type(self), name):
                    raise UserError(
                        f"`{name}={value}` is about servers, and no judge is at one; {_FORMS}"
                    )

    def read_judges(self) -> list[Judge]:
        """Read who is asked, in the order that was given; all names were checked before.

        Raises:
            UserError: none was given.
        """
        if not self.judges:
            raise UserError(f"`judges` must name whom to compare; {_FORMS}")
        return [self._read_judge(name) for name in self.judges]

    def _read_judge(self, name: str) -> Judge:
        try:
            return self._parse(name)
        except UserError as error:
            shown = name.partition("@")[0]  # a password may stand in what follows
            raise UserError(f"`judges={shown}`: {error}; {_FORMS}") from None

    def _parse(self, name: str) -> Judge:
        if Path(name).expanduser().is_dir():
            return Judge(name, self._vlm(name))
        if "@" in name:
            found = _SERVED.fullmatch(name)
            if found is None:
                raise UserError("NAME@ is followed by a server's URL, like http://HOST:8000")
            server = ServerConfig(
                server=(found[2],),
                server_video=self.server_video,
                server_key_env=self.server_key_env,
                concurrency=self.concurrency,
            )
            return Judge(name, VlmConfig(vlm=found[1], dtype=self.dtype), server)
        if (found := _REWARDED.fullmatch(name)) is not None:
            reward_model = RewardModelConfig(reward_model=found[1], reward_path=found[2] or None)
            return Judge(name, VlmConfig(device=self.device), reward_model=reward_model)
        found = _BITS.fullmatch(name)
        vlm, bits = found.groups() if found else (name, None)
        if vlm != "auto":
            find_folder(vlm)
        return Judge(name, self._vlm(vlm, bits))

    def _vlm(self, vlm: str, quantize: str | None = None) -> VlmConfig:
        return VlmConfig(
            vlm=vlm,
            device=self.device,
            dtype=self.dtype,
            device_map=self.device_map,
            quantize=quantize,  # pyright: ignore[reportArgumentType]
        )

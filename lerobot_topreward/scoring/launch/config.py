"""How scoring is spread over processes and machines: all that can be checked before one is reached."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from tyro.conf import arg

from lerobot_topreward.config import load_options
from lerobot_topreward.errors import UserError

_MOST_TASKS = 1000  # elements of one Slurm array, by default
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)[smhd]?")  # as huggingface_hub takes it, not 0
_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d\d?(:\d\d){0,2}")  # as sbatch takes them


@dataclass(frozen=True, slots=True)
class Share:
    """One part of the episodes, out of so many."""

    rank: int  # 0..of-1
    of: int

    @property
    def name(self) -> str:
        """The name of its files, counted from 1 as on the command line."""
        return f"share_{self.rank + 1}_of_{self.of}"


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What a cluster gives each task; a task scores its share of the episodes."""

    tasks: int  # that score, at the same time where there is room
    gpus_per_task: int = 1  # 0 where servers or CPUs score
    cpus_per_task: int = 4  # they decode; without a GPU they score as well
    mem_per_cpu_gb: int = 4  # GB of memory for each of these

    def __post_init__(self) -> None:
        """Check what a cluster would refuse much later."""
        for name, least in (("cpus_per_task", 1), ("mem_per_cpu_gb", 1), ("gpus_per_task", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be >= {least}; got {getattr(self, name)}")
        if not 1 <= self.tasks <= _MOST_TASKS:
            raise UserError(f"tasks must be 1..{_MOST_TASKS}; got {self.tasks}")


@dataclass(frozen=True, kw_only=True)
class SlurmConfig(TaskConfig):
    """What ``launch=slurm`` asks of a Slurm cluster."""

    partition: str  # where the tasks run
    time: str = "24:00:00"  # that a task may take, as sbatch takes it; in quotes
    qos: str | None = None  # quality of service, where the cluster wants one
    sbatch: tuple[str, ...] = ()  # further arguments of sbatch, as account=robots
    # Shell command that makes our commands known on a node; by default those of this environment.
    activate: str | None = None

    def __post_init__(self) -> None:
        """Check what sbatch would refuse, or read as another line."""
        super().__post_init__()
        if not _TIME.fullmatch(self.time):
            raise UserError(f"time must be like 12:00:00 or 2-00:00:00, in quotes; got {self.time}")
        for argument in self.sbatch:
            if not re.fullmatch(r"[a-z][a-z-]*(=\S+)?", argument):
                raise UserError(
                    f"sbatch takes arguments like account=robots, without dashes; got {argument!r}"
                )
        for name in ("partition", "qos"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"\S+", value):
                raise UserError(f"{name} must be a name without spaces; got {value!r}")


@dataclass(frozen=True, kw_only=True)
class RayConfig(TaskConfig):
    """What ``launch=ray`` asks of a Ray cluster that runs."""

    address: str = "auto"  # of the cluster; auto finds the one that this machine is part of


@dataclass(frozen=True, kw_only=True)
class SpreadConfig:
    """How many processes score, and where; by default this one."""

    workers: int | Literal["auto"] | None = None  # processes on this machine; auto: one per GPU
    share: str | None = None  # score only this part, as 1/4, and write no labels; one per machine
    launch: Literal["slurm", "ray"] | None = None  # score on a cluster; --output is a shared folder
    launch_config: Path | None = None  # YAML file: tasks, partition, time, gpus_per_task ...

    def __post_init__(self) -> None:
        """Check the options, and the file that one of them names."""
        if isinstance(self.workers, int) and not 1 <= self.workers <= _MOST_TASKS:
            raise UserError(f"`workers` must be 1..{_MOST_TASKS} or auto; got {self.workers}")
        given = [item.name for item in fields(self) if getattr(self, item.name) is not None]
        ways = [name for name in given if name != "launch_config"]
        if len(ways) > 1:
            raise UserError(
                f"`{ways[0]}` and `{ways[1]}` do not go together; leave out one of them"
            )
        if (self.launch is None) != (self.launch_config is None):
            there, lacking = (
                ("launch", "launch_config") if self.launch else ("launch_config", "launch")
            )
            raise UserError(f"`{there}` needs `{lacking}`")
        if self.share is not None:
            self.read_share()
        self.read_launch()

    def read_share(self) -> Share | None:
        """Read the option `share`.

        Raises:
            UserError: it is no part of a whole.
        """
        if self.share is None:
            return None
        found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", self.share)
        rank, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= rank <= of <= _MOST_TASKS:
            raise UserError(f"`share` must be a part of a whole, as 1/4 to 4/4; got {self.share}")
        return Share(rank - 1, of)

    def read_launch(self) -> SlurmConfig | RayConfig | None:
        """Read the file that `launch_config` names.

        Raises:
            UserError: it cannot be read, or a value breaks a rule.
        """
        if self.launch is None or self.launch_config is None:
            return None
        kind = SlurmConfig if self.launch == "slurm" else RayConfig
        return load_options(kind, self.launch_config, option="launch_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """Whether the command runs here or on Hugging Face Jobs; its options are those of lerobot-train."""

    # Where it runs: local, or a machine of HF Jobs, as a10g-small; `hf jobs hardware` lists them.
    target: Annotated[str | None, arg(name="job.target")] = None
    # Docker image in which it is installed; it must have uv.
    image: Annotated[str, arg(name="job.image")] = "ghcr.io/astral-sh/uv:python3.12-bookworm"
    # Longest time it may take, as 90m, 4h or 2d. What it scored until then is lost with the machine.
    timeout: Annotated[str | None, arg(name="job.timeout")] = "2d"
    detach: Annotated[bool, arg(name="job.detach")] = (
        False  # submit it, and do not wait for its end
    )
    tags: Annotated[tuple[str, ...], arg(name="job.tags")] = ()  # of the job, beside lerobot
    # What pip installs there, as lerobot-topreward==0.1.0; what is installed here if not given.
    package: Annotated[str | None, arg(name="job.package")] = None
    dry_run: Annotated[bool, arg(name="job.dry_run")] = False  # print what would be sent, and stop

    def __post_init__(self) -> None:
        """Check what can be known to be wrong before the Hub is asked."""
        if not self.is_remote:
            for item in fields(self):
                if item.name != "target" and getattr(self, item.name) != item.default:
                    raise UserError(f"`job.{item.name}` needs `job.target=FLAVOR`, as a10g-small")
        if self.timeout is not None:
            found = _DURATION.fullmatch(self.timeout)
            if not found or float(found[1]) == 0:
                raise UserError(f"`job.timeout` must be like 90m, 4h or 2d; got {self.timeout!r}")
        for tag in self.tags:
            if not re.fullmatch(r"[\w.-]{1,100}", tag):
                raise UserError(
                    f"`job.tags` takes names of letters, digits, '-', '_' and '.', one after the "
                    f"other; got {tag!r}"
                )
        if not re.fullmatch(r"[\w./:@-]+", self.image):
            raise UserError(f"`job.image` must be a Docker image, as NAME:TAG; got {self.image!r}")
        self.read_package()

    @property
    def is_remote(self) -> bool:
        """Whether the command runs on HF Jobs."""
        return self.target not in (None, "local")

    def read_package(self) -> Requirement | None:
        """Read the option `job.package`.

        Raises:
            UserError: it is no requirement, another package's, holds a secret or lies on this machine.
        """
        if self.package is None:
            return None
        name = "lerobot-topreward"
        forms = f"{name}==0.1.0 or '{name} @ git+https://HOST/REPOSITORY@COMMIT'"
        try:
            found = Requirement(self.package)
        except InvalidRequirement:
            # Not shown: there may be a token in what is no requirement.
            raise UserError(f"`job.package` must be like {forms}; it is no requirement") from None
        if canonicalize_name(found.name) != name:
            raise UserError(f"`job.package` must install {name}, as {forms}; got {found.name}")
        if found.url is not None:
            scheme, _, rest = found.url.partition("://")
            if "@" in rest.partition("/")[0] or "?" in rest:
                raise UserError(
                    "`job.package` must not carry a name, password or key in its URL, which "
                    "everybody who sees the job would read; use a public URL"
                )
            if scheme not in ("https", "git+https"):
                raise UserError(
                    f"`job.package` must be a version, or a URL of https or git+https; got {scheme}"
                )
        return found

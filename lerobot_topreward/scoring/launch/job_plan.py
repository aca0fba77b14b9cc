"""A command for Hugging Face Jobs: what of it cannot go there, and what is sent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import distribution
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from huggingface_hub import (
    HfApi,
    JobHardware,
    JobHardwareInfo,
    get_token,
    is_offline_mode,
)
from packaging.requirements import Requirement

from lerobot_topreward.config import as_arguments, flat_options
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.scoring.launch.config import JobConfig
from lerobot_topreward.vlm.identity import BUILTIN, find_folder

# What the client raises if the Hub does not answer, or not as the Hub does.
UNCLEAR = (OSError, httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job that can be submitted."""

    api: HfApi
    namespace: str  # whose job it is
    config: JobConfig
    flavor: str  # the machine and its price, in words
    command: list[str]  # that it runs
    secrets: Mapping[str, str]  # environment variables there; nothing shows their values

    @property
    def tags(self) -> list[str]:
        """The job's tags: as LeRobot's own jobs, it has that of LeRobot."""
        return [*dict.fromkeys(["lerobot", *self.config.tags])]

    def hide(self, text: str) -> str:
        """Replace secrets in a text by stars."""
        for secret in self.secrets.values():
            text = text.replace(secret, "***")
        return text


def refuse_local(config: Any) -> None:
    """Refuse options of a command that name what only this machine or its network has.

    Raises:
        UserError: names the option.
    """
    options = flat_options(config)
    where = f"`job.target={options['job.target']}` runs on another machine"
    for name, value in options.items():
        if isinstance(value, Path) and name != "root":
            raise UserError(f"{where}, which has no {value}; leave out `{name}={value}`")
    if options["root"] is not None:
        raise UserError(
            f"{where}, which has no `root={options['root']}`; push the dataset to the Hub, and give "
            "`repo_id=OWNER/NAME`"
        )
    if options["repo_id"] is None:
        raise UserError(f"{where}, which reads the dataset from the Hub: give `repo_id=OWNER/NAME`")
    for name in ("share", "launch"):
        if options.get(name) is not None:
            raise UserError(
                f"{where}, which stands alone; `{name}={options[name]}` is for machines that share a "
                "folder. For one with several GPUs use `workers=auto`"
            )
    for name in ("vlm", "reward_path"):
        value = options.get(name)
        if value not in (None, BUILTIN, "auto") and find_folder(value) is not None:
            raise UserError(
                f"{where}, which has no folder {value}; upload it with hf upload, and give "
                f"`{name}=OWNER/NAME`"
            )
    for url in options.get("server", ()):
        if _is_near(urlsplit(url).hostname or ""):
            raise UserError(
                f"{where}, and does not reach `server={url}` in this network; name a server that the "
                "internet reaches, or leave it out and let the job run the VLM"
            )


def _is_near(host: str) -> bool:
    """Whether a host's name or address means nothing outside of this network."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host.rstrip(".") or host.endswith((".local", ".localhost", ".internal"))


def plan_job(
    command: str,
    config: Any,
    *,
    extras: frozenset[str] = frozenset(),
    secrets: Mapping[str, str] | None = None,
    api: HfApi | None = None,
) -> JobPlan:
    """Find out what is to be sent, and whether the Hub has such a machine; sends nothing.

    Args:
        command: the name of one of our commands.
        config: its options, with a `JobConfig` named ``job``.
        extras: of our package, which the job needs.
        secrets: environment variables for it, beside the token.
        api: the Hub's client.

    Raises:
        UserError: nobody is logged in, the machine does not exist, the package that is installed
            here cannot be installed there, or `refuse_local`.
    """
    refuse_local(config)
    job: JobConfig = config.job
    api = api or HfApi()
    token = api.token if isinstance(api.token, str) else get_token()
    if token is None:
        raise UserError(
            f"`job.target={job.target}` needs a token for the Hub, and none was found. Log in: hf "
            "auth login"
        )
    if is_offline_mode():
        raise UserError(f"`job.target={job.target}` needs the Hub; unset HF_HUB_OFFLINE")
    package = job.read_package() or _installed(job)
    package.extras |= extras
    with translate_errors(repo_id=str(job.target), option="job.target"):
        namespace = _find_user(api)
    arguments = as_arguments(replace(config, job=JobConfig(target="local")))
    return JobPlan(
        api=api,
        namespace=namespace,
        config=job,
        flavor=_find_flavor(api, job),
        command=[
            *("uv", "tool", "run", "--python", "3.12", "--from", str(package)),
            *("lerobot-topreward", command, *arguments),
        ],
        secrets={"HF_TOKEN": token, **(secrets or {})},
    )


def _find_user(api: HfApi) -> str:
    try:
        name = api.whoami()["name"]
    except (ValueError, LookupError, TypeError):
        name = None
    if not isinstance(name, str):
        raise UserError("the Hub does not say whose your token is; check HF_ENDPOINT")
    return name


def _installed(job: JobConfig) -> Requirement:
    """What installs on another machine the package that runs here.

    https://packaging.python.org/en/latest/specifications/direct-url/
    """
    name = "lerobot-topreward"
    here = distribution(name)
    text = here.read_text("direct_url.json")
    if text is None:  # from a package index
        return Requirement(f"{name}=={here.version}")
    origin = json.loads(text)
    url, commit = origin["url"], origin.get("vcs_info", {}).get("commit_id")
    if not url.startswith("https://"):
        raise UserError(
            f"`job.target={job.target}` installs {name} on another machine, and here it was "
            f"installed from {url}; say in `job.package` where it is to be had: {name}=="
            f"{here.version} from the package index, or '{name} @ git+https://HOST/REPOSITORY@COMMIT'"
        )
    made = f"{name} @ {url}" if commit is None else f"{name} @ git+{url}@{commit}"
    return replace(job, package=made).read_package() or Requirement(made)


def _find_flavor(api: HfApi, job: JobConfig) -> str:
    """Describe the machine that was asked for.

    Raises:
        UserError: there is none of this name; those that there are are listed.
    """
    try:
        machines = {machine.name: _describe(machine) for machine in api.list_jobs_hardware()}
    except (httpx.ConnectError, httpx.TimeoutException) as error:
        with translate_errors(repo_id=str(job.target), option="job.target"):
            raise error
    except UNCLEAR:  # then as they were when the client was written
        machines = {flavor.value: flavor.value for flavor in JobHardware}
    if job.target not in machines:
        close = get_close_matches(str(job.target), machines, n=1)
        hint = f"; did you mean {close[0]}?" if close else "."
        listed = "\n".join(f"  {words}" for words in machines.values())
        raise UserError(
            f"`job.target={job.target}` is no machine of HF Jobs{hint} There are local, and:\n{listed}"
        )
    return machines[str(job.target)]


def _describe(machine: JobHardwareInfo) -> str:
    cost, unit = float(machine.unit_cost_usd), str(machine.unit_label)
    if unit == "minute":
        cost, unit = 60 * cost, "hour"
    gpu = machine.accelerator
    what = machine.cpu if gpu is None else f"{gpu.quantity} x {gpu.model}, {gpu.vram}"
    return f"{machine.name}: {what}, ${cost:.2f} per {unit}"

"""A command on Hugging Face Jobs: what of it cannot go there, how it is sent, and what it says.

huggingface_hub talks to the Hub. `lerobot.jobs` does the same for LeRobot's commands, and what it
has for any command is used from there. Its `follow_job` is not: it stops reading the log as soon as
the job has ended, so that the traceback is cut off, and prints secrets and control characters.
"""

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import distribution
from ipaddress import ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
from huggingface_hub import (
    HfApi,
    JobHardware,
    JobHardwareInfo,
    JobStage,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from lerobot_topreward.config import as_arguments, flat_options
from lerobot_topreward.console import INTERRUPTED
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.scoring.launch.config import JobConfig
from lerobot_topreward.vlm.identity import BUILTIN, find_folder

_ENDED = (JobStage.COMPLETED, JobStage.CANCELED, JobStage.ERROR, JobStage.DELETED)
_LOOK_EVERY_S = 5.0
_PATIENCE_S = 300.0  # for a Hub that does not say how a job is
_LAST_LINES_S = 20.0  # for each line still to come when a job has ended; the client retries in 10
_LAST_TRIES = 5  # to read the rest of the log of a job that has ended
_ID = re.compile(r"[\w-]{1,100}", re.ASCII)
# What the client raises if the Hub does not answer, or not as the Hub does.
_UNCLEAR = (OSError, httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError)


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
        namespace = api.whoami(cache=True)["name"]
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
    except _UNCLEAR:  # then as they were when the client was written
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


def run_job(plan: JobPlan, *, console: Console) -> int:
    """Submit a job and show its log until it ends; Ctrl-C leaves it running.

    Returns:
        The exit code: 0 completed or detached, 1 ended otherwise, 130 by Ctrl-C.

    Raises:
        UserError: the Hub refuses the job, or says no more how it is.
    """
    job, tags = plan.config, plan.tags
    for name, value in (
        ("machine", plan.flavor),
        ("image", job.image),
        ("at most", "as long as the Hub allows by default" if job.timeout is None else job.timeout),
        ("secrets", ", ".join(plan.secrets)),
        ("labels", ", ".join(tags)),
        ("command", plan.hide(shlex.join(plan.command))),
    ):
        console.print(Text(f"{name:<21}{value}"))
    if job.dry_run:
        console.print("a dry run: nothing was sent")
        return 0
    with _explain_refusal(plan):
        made = plan.api.run_job(
            image=job.image,
            command=plan.command,
            flavor=job.target,
            secrets={**plan.secrets},
            timeout=job.timeout,
            labels=dict.fromkeys(tags, "true"),
            namespace=plan.namespace,
        )
        if not (isinstance(made.id, str) and _ID.fullmatch(made.id)):
            raise ValueError(f"{made.id!r} is no name of a job")
    console.print(Text(f"{'job':<21}{made.url}"))
    come_back = f"  its log    hf jobs logs -f {made.id}\n  to stop it hf jobs cancel {made.id}"
    if job.detach:
        console.print(f"submitted; it runs by itself\n{come_back}")
        return 0
    try:
        return follow(plan, made.id, console=console)
    except KeyboardInterrupt:
        console.print(f"detached; the job goes on, and costs\n{come_back}")
        return INTERRUPTED


@contextmanager
def _explain_refusal(plan: JobPlan) -> Iterator[None]:
    """Tell a job that was refused from one that may run though the Hub did not say so."""
    target = plan.config.target
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        with translate_errors(repo_id=str(target), option="job.target"):
            raise error
    except (*_UNCLEAR, KeyboardInterrupt) as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 500
        said = str(getattr(error, "server_message", None) or error or "it was interrupted")
        said = plan.hide(" ".join(said.split()))[:300]
        advice = {
            401: "Log in again: hf auth login",
            402: f"Jobs are paid for in advance: {plan.api.endpoint}/settings/billing",
            403: "Take a token that may start jobs, from an account that pays for them: "
            f"{plan.api.endpoint}/settings/tokens",
        }.get(status, "Change the options, or run again later")
        if status < 500:
            raise UserError(
                f"`job.target={target}` was refused by the Hub: {said} ({status}). {advice}"
            ) from error
        raise UserError(
            f"`job.target={target}`: the Hub did not say whether it took the job ({said}). It may "
            "run, and cost: look with hf jobs ps before you run this again"
        ) from error


def follow(
    plan: JobPlan,
    job_id: str,
    *,
    console: Console,
    every_s: float = _LOOK_EVERY_S,
    patience_s: float = _PATIENCE_S,
    last_lines_s: float = _LAST_LINES_S,
) -> int:
    """Show the log of a job until it has ended; what it says is a stranger's, and shown as text.

    Args:
        plan: the job's.
        job_id: its name on the Hub.
        console: shows the log.
        every_s: how often the Hub is asked how it is.
        patience_s: how long the Hub may not say so.
        last_lines_s: how long each line may take that is not here when it has ended.

    Returns:
        The exit code: 0 completed, 1 not.

    Raises:
        UserError: the Hub says no more how it is.
    """
    lines: SimpleQueue[str | None] = SimpleQueue()
    ended = Event()
    reading = (plan, job_id, lines, ended, every_s)
    Thread(target=_read_log, args=reading, daemon=True, name="job log").start()

    def show(wait_s: float) -> bool:
        try:
            line = lines.get(timeout=max(0.0, wait_s))
        except Empty:
            return False
        if line is None:
            return False
        console.print(Text(plan.hide(line)))
        return True

    stage, message, answered = "", None, time.monotonic()
    while stage not in _ENDED:
        try:
            status = plan.api.inspect_job(job_id=job_id, namespace=plan.namespace).status
            if status.stage != stage:
                stage = str(getattr(status.stage, "value", status.stage))
                console.print(Text(f"job {job_id}: {stage.lower()}"))
            message, answered = status.message, time.monotonic()
        except _UNCLEAR as error:
            if time.monotonic() - answered >= patience_s:
                ended.set()
                raise UserError(
                    f"job {job_id}: for {patience_s:.0f} s the Hub did not say how it is "
                    f"({plan.hide(' '.join(str(error).split()))[:200]}). It may go on, and cost: hf "
                    f"jobs inspect {job_id}; its log: hf jobs logs -f {job_id}"
                ) from error
        look = time.monotonic() + every_s
        while stage not in _ENDED and (left := look - time.monotonic()) > 0:
            show(left)
    ended.set()
    while show(last_lines_s):
        pass
    if stage == JobStage.COMPLETED:
        return 0
    why = f": {plan.hide(str(message))}" if message else ""
    console.print(Text(f"job {job_id} ended with {stage}{why}"), style="red")
    console.print(f"  its log    hf jobs logs {job_id}")
    return 1


def _read_log(
    plan: JobPlan, job_id: str, lines: SimpleQueue[str | None], ended: Event, again_s: float
) -> None:
    """Read a job's log to its end, again from its beginning where the connection is lost.

    None stands after its last line.
    """
    seen, tries_left = 0, _LAST_TRIES
    while tries_left:
        last, complete = ended.is_set(), False
        try:
            log = plan.api.fetch_job_logs(job_id=job_id, namespace=plan.namespace, follow=not last)
            for number, line in enumerate(log, start=1):
                if number > seen:
                    seen = number
                    lines.put(line)
            complete = last  # before, the connection may have been lost
        except _UNCLEAR:  # whether the job goes on is asked elsewhere
            pass
        if complete:
            break
        tries_left -= last
        if last:
            time.sleep(again_s)
        ended.wait(again_s)
    lines.put(None)

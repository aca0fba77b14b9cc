"""A command on Hugging Face Jobs: it is sent, and its log is shown.

huggingface_hub talks to the Hub. `lerobot.jobs.hf.follow_job` is not used: it stops reading the log
when the job has ended, which cuts tracebacks off, and prints secrets and control characters.
"""

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import Event, Thread

import httpx
from huggingface_hub import JobStage
from huggingface_hub.errors import HfHubHTTPError
from rich.console import Console
from rich.text import Text

from lerobot_topreward.console import INTERRUPTED
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.scoring.launch.job_plan import UNCLEAR, JobPlan

_ENDED = (JobStage.COMPLETED, JobStage.CANCELED, JobStage.ERROR, JobStage.DELETED)
_LOOK_EVERY_S = 5.0
_PATIENCE_S = 300.0  # for a Hub that does not say how a job is
_LAST_LINES_S = 20.0  # for each line still to come when a job has ended; the client retries in 10
_LAST_TRIES = 5  # to read the rest of the log of a job that has ended
_ID = re.compile(r"[\w-]{1,100}", re.ASCII)


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
    except (*UNCLEAR, KeyboardInterrupt) as error:
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
        except UNCLEAR as error:
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
        except UNCLEAR:  # whether the job goes on is asked elsewhere
            pass
        if complete:
            break
        tries_left -= last
        if last:
            time.sleep(again_s)
        ended.wait(again_s)
    lines.put(None)

"""Plans of jobs for the Hub on 127.0.0.1, made in the tests' own process."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from hub_state import Hub
from huggingface_hub import HfApi

from lerobot_topreward import hub_errors
from lerobot_topreward.cli import parse
from lerobot_topreward.console import SafeConsole
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.scoring.launch.job_plan import JobPlan, plan_job
from lerobot_topreward.scoring.launch.job_run import follow

TOKEN = "hf_writer"
PACKAGE = "lerobot-topreward==0.1.0"
REMOTE = ["--job.target=a10g-small", f"--job.package={PACKAGE}", "--push-to-hub"]


@pytest.fixture
def make_plan(hub: Hub) -> Callable[..., JobPlan]:
    """Plan a job in this process."""

    def make(*options: str, **others: Any) -> JobPlan:
        target = [] if "--job.target" in " ".join(options) else REMOTE[:1]
        given = ["--repo-id=alice/cubes", *target, *REMOTE[1:], *options]
        config = parse(LabelConfig, "label", given)
        return plan_job("label", config, api=HfApi(endpoint=hub.url, token=TOKEN), **others)

    return make


@pytest.fixture
def job_console() -> SafeConsole:
    return SafeConsole(file=StringIO(), width=200, soft_wrap=True, markup=False, highlight=False)


@pytest.fixture
def online_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_errors, "_WAITS_S", (0.01, 0.01))


def printed(console: SafeConsole) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def watch(plan: JobPlan, console: SafeConsole, **times: float) -> int:
    """Submit a job past the console, and follow it with little patience."""
    made = plan.api.run_job(image="x", command=plan.command, flavor="a10g-small")
    limits = {"every_s": 0.05, "patience_s": 1, "last_lines_s": 1} | times
    return follow(plan, made.id, console=console, **limits)

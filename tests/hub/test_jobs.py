"""Commands on HF Jobs, against a stand-in for its API: what is sent, and what is shown."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_jobs import Job, say
from hub_state import Hub
from job_plans import REMOTE, TOKEN, printed, watch
from programs import take_ctrl_c

from lerobot_topreward.cli import parse
from lerobot_topreward.console import SafeConsole
from lerobot_topreward.errors import UserError
from lerobot_topreward.label.config import LabelConfig
from lerobot_topreward.scoring.launch.job_plan import JobPlan
from lerobot_topreward.scoring.launch.job_run import run_job

pytestmark = pytest.mark.usefixtures("online_and_impatient")
Client = Callable[..., Any]
MakePlan = Callable[..., JobPlan]


def test_a_job_is_sent_as_it_was_shown_and_its_log_comes_back(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole
) -> None:
    hub.run_job = say("scored 3 episodes", "pushed")
    plan = make_plan(
        "--normalize=task", "--episodes=0:3", "--job.timeout=4h", "--job.tags", "a", "b"
    )
    assert run_job(plan, console=job_console) == 0
    (job,) = hub.jobs.values()
    there = job.spec["command"]
    assert job.spec == {
        "command": there,
        "arguments": [],
        "environment": {},
        "flavor": "a10g-small",
        "secrets": {"HF_TOKEN": TOKEN},
        "timeoutSeconds": 4 * 3600,
        "labels": {"lerobot": "true", "a": "true", "b": "true", "name": job.spec["labels"]["name"]},
        "dockerImage": plan.config.image,
    }
    assert list(job.spec["labels"])[:3] == ["lerobot", "a", "b"]
    shown = printed(job_console)
    assert "a10g-small: 1 x A10G, 24 GB, $1.00 per hour" in shown
    assert shlex.join(there) in shown
    assert shown.index("scored 3 episodes") < shown.index("pushed")
    assert f"{hub.url}/jobs/alice/{job.id}" in shown
    assert TOKEN not in shown
    assert TOKEN not in json.dumps(there)
    assert TOKEN not in "".join(request.path for request in hub.requests)


def test_the_other_side_is_asked_for_the_same(make_plan: MakePlan) -> None:
    options = ["--normalize=task", "--vlm=auto", "--workers=auto", "--no-other-cameras"]
    options += ["--horizon=1e-3", "--instruction=put `it` into --the 'box' $HOME"]
    plan = make_plan(*options, extras=frozenset({"scale", "quant"}))
    start = plan.command.index("label")
    assert plan.command[:start] == [
        *("uv", "tool", "run", "--python", "3.12", "--from"),
        "lerobot-topreward[quant,scale]==0.1.0",
        "lerobot-topreward",
    ]
    there = parse(LabelConfig, "label", plan.command[start + 1 :])
    here = ["--repo-id=alice/cubes", "--push-to-hub", "--job.target=local", *options]
    assert there == parse(LabelConfig, "label", here)
    assert not there.job.is_remote


@pytest.mark.slow
def test_a_dry_run_sends_nothing(hub: Hub, client: Client) -> None:
    hub.add("alice/cubes", tag="v3.0")
    label = ["label", "--repo-id", "alice/cubes", *REMOTE, "--job.dry-run"]
    done = client("command", arguments=label)
    assert done["code"] == 0, done["errors"]
    assert "secrets              HF_TOKEN\n" in done["out"]
    assert "--job.target=local" in done["out"]
    assert "a dry run: nothing was sent" in done["out"]
    assert TOKEN not in done["out"]
    assert not hub.jobs
    assert hub.asked("POST", "/api/jobs") == []


def test_a_job_can_be_left_to_itself(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole
) -> None:
    hub.run_job = lambda job: None
    assert run_job(make_plan("--job.detach=true"), console=job_console) == 0
    (job,) = hub.jobs.values()
    assert f"hf jobs logs -f {job.id}" in printed(job_console)
    assert hub.asked("GET", "/logs") == []


@pytest.mark.parametrize("stage", ["ERROR", "CANCELED", "DELETED"])
def test_a_job_that_fails_ends_with_its_last_lines_and_another_exit_code(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole, stage: str
) -> None:
    lines = [f"line {i}" for i in range(500)]
    hub.run_job = say(*lines, "CUDA out of memory", stage=stage, message="Job failed")
    assert watch(make_plan(), job_console) == 1
    assert [line for line in printed(job_console).splitlines() if "line " in line] == lines
    end = printed(job_console).splitlines()[-3:]
    assert end[0] == "CUDA out of memory"
    assert "Job failed" in end[1]
    assert end[1].endswith(f"ended with {stage}: Job failed")


def test_a_log_that_breaks_is_read_on_without_a_line_twice(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole
) -> None:
    hub.fail("GET", "/logs", after=250, skip=1)
    hub.fail("GET", "/logs", after=900)
    hub.fail("GET", "/logs", status=502, times=4)
    hub.fail("GET", "/logs", status=404)

    def run(job: Job) -> None:
        for i in range(40):
            job.lines.append(f"line {i}")
            time.sleep(0.01)
        job.end("the end")

    hub.run_job = run
    assert watch(make_plan(), job_console, last_lines_s=10) == 0
    lines = [line for line in printed(job_console).splitlines() if not line.startswith("job ")]
    assert lines == [*(f"line {i}" for i in range(40)), "the end"]


@pytest.mark.slow
def test_a_log_that_never_closes_or_makes_no_sense_does_not_hold_anybody(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole
) -> None:
    def run(job: Job) -> None:
        job.hangs = True
        job.end("said")

    hub.run_job = run
    assert watch(make_plan(), job_console) == 0
    assert "said" in printed(job_console)
    strange = [
        b'data: {"data": 3}\n\n',
        b"data: {broken\n\n",
        b'data: {"other": ""}\n\n',
        b"\xff\xfe",
    ]
    for body in strange:
        hub.reset_faults()
        hub.fail("GET", "/logs", status=200, body=body, times=100)
        hub.run_job = say("unread", stage="ERROR")
        assert watch(make_plan(), job_console) == 1


def test_what_a_job_says_is_shown_as_text_and_without_secrets(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole
) -> None:
    hub.run_job = say(
        f"HF_TOKEN={TOKEN} key s3cret",
        "\x1b]0;owned\x07 `max_stall` [red]",
        stage="ERROR",
        message=TOKEN,
    )
    assert watch(make_plan(secrets={"KEY": "s3cret"}), job_console) == 1
    shown = printed(job_console)
    assert TOKEN not in shown
    assert "HF_TOKEN=*** key ***" in shown
    assert "]0;owned `max_stall` [red]" in shown
    assert not {"\x1b", "\x07"} & {*shown}


def test_a_hub_that_is_away_for_a_while_is_asked_again_and_then_given_up(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole
) -> None:
    hub.fail("GET", "/api/jobs/alice/[^/]+$", status=500, times=8)
    hub.fail("GET", "/api/jobs/alice/[^/]+$", times=3)
    hub.fail("GET", "/api/jobs/alice/[^/]+$", status=200, body=b'{"id": "x"}', times=2)
    assert watch(make_plan(), job_console, patience_s=20) == 0
    hub.fail("GET", "/api/jobs/alice/[^/]+$", status=500, times=10**6)
    with pytest.raises(UserError, match=r"did not say how it is .* hf jobs logs -f 687fb"):
        watch(make_plan(), job_console, patience_s=0.2)
    hub.reset_faults()


@pytest.mark.slow
def test_ctrl_c_detaches_and_the_job_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.add("alice/cubes", tag="v3.0")
    hub.run_job = lambda job: job.lines.append("scoring")
    with subprocess.Popen(
        [sys.executable, "-m", "lerobot_topreward", "label", "--repo-id=alice/cubes", *REMOTE],
        env={**os.environ, **hub.environment(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_ctrl_c,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "scoring\n":
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (job,) = hub.jobs.values()
    assert "detached; the job goes on, and costs" in rest
    assert f"hf jobs logs -f {job.id}" in rest
    assert f"hf jobs cancel {job.id}" in rest
    assert "Traceback" not in errors
    assert job.stage == "RUNNING"


@pytest.mark.slow
def test_the_whole_command_runs_there_and_its_labels_are_on_the_branch(
    hub: Hub,
    client: Client,
    record_dataset: Callable[..., Path],
    tiny_vlm: Path,
    tmp_path: Path,
) -> None:
    """The job runs our own command in another process, with what was sent and nothing else."""
    hub.add("alice/there", record_dataset(lengths=(5, 6)), tag="v3.0")
    hub.add("alice/vlm", tiny_vlm, kind="models")

    def run(job: Job) -> None:
        words = job.spec["command"]
        ran = subprocess.run(
            [sys.executable, "-m", "lerobot_topreward", *words[words.index("label") :]],
            env={**os.environ, **hub.environment(tmp_path, token=None), **job.spec["secrets"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            text=True,
        )
        stage = "ERROR" if ran.returncode else "COMPLETED"
        job.end(*ran.stdout.splitlines(), stage=stage)

    hub.run_job = run
    label = ["label", "--repo-id=alice/there", "--vlm=alice/vlm", "--normalize=task", *REMOTE]
    done = client("command", arguments=label)
    assert done["code"] == 0, done
    assert "pushed" in done["out"]
    assert "topreward_progress.parquet" in hub.dataset("alice/there").resolve("topreward").files
    assert TOKEN not in done["out"] + done["errors"]


@pytest.mark.slow
def test_what_was_only_recorded_here_is_uploaded_private(
    hub: Hub, client: Client, client_process: Any, record_dataset: Callable[..., Path]
) -> None:
    home = Path(client("home"))
    root = record_dataset(lengths=(5,))
    (home / "alice").mkdir(parents=True, exist_ok=True)
    root.rename(home / "alice/recorded")
    label = ["label", "--repo-id=alice/recorded", *REMOTE, "--job.detach"]
    planned = client("command", arguments=[*label, "--job.dry-run"])
    assert planned["code"] == 0, planned
    assert "is uploaded first, private" in planned["out"]
    assert ("datasets", "alice/recorded") not in hub.repos
    done = client("command", arguments=label)
    assert done["code"] == 0, done
    assert hub.dataset("alice/recorded").private
    assert "v3.0" in client("refs", repo_id="alice/recorded")
    assert len(hub.jobs) == 1

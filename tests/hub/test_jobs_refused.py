"""Jobs that are refused, by us before anything is sent, or by the Hub; and none is sent twice."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hub_state import Hub
from job_plans import REMOTE, TOKEN

from lerobot_topreward.console import SafeConsole
from lerobot_topreward.errors import UserError
from lerobot_topreward.scoring.launch.job_plan import JobPlan
from lerobot_topreward.scoring.launch.job_run import run_job

pytestmark = pytest.mark.usefixtures("online_and_impatient")
Client = Callable[..., Any]
MakePlan = Callable[..., JobPlan]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 402}, "refused by the Hub: told to fail (402). Jobs are paid for in advance"),
        ({"status": 403}, "Take a token that may start jobs"),
        ({"status": 400}, "refused by the Hub: told to fail (400)"),
        ({"status": 500}, "It may run, and cost: look with hf jobs ps"),
        ({"status": None, "after": 10}, "It may run, and cost: look with hf jobs ps"),
        ({"status": 200, "body": b"<html>"}, "look with hf jobs ps"),
        ({"status": 200, "body": b"[]"}, "look with hf jobs ps"),
        ({"status": 200, "body": b'{"id": "x"}'}, "look with hf jobs ps"),
    ],
)
def test_a_job_is_never_sent_twice(
    hub: Hub,
    make_plan: MakePlan,
    job_console: SafeConsole,
    fault: dict[str, Any],
    said: str,
) -> None:
    plan = make_plan()
    hub.fail("POST", "/api/jobs/alice", **fault, times=10)
    with pytest.raises(UserError) as refused:
        run_job(plan, console=job_console)
    assert said in str(refused.value)
    sent = [request for request in hub.requests if request.method == "POST"]
    assert len(sent) == 1
    assert TOKEN not in str(refused.value)


def test_a_busy_hub_is_asked_again(hub: Hub, make_plan: MakePlan, job_console: SafeConsole) -> None:
    plan = make_plan("--job.detach")
    hub.fail("POST", "/api/jobs/alice", status=429)
    assert run_job(plan, console=job_console) == 0
    assert len(hub.jobs) == 1


@pytest.mark.parametrize("name", ["../../x", "a; rm -rf ~", "\x1b[2J", "", 7, None, "x" * 1000])
def test_a_job_with_a_strange_name_is_not_followed(
    hub: Hub, make_plan: MakePlan, job_console: SafeConsole, name: object
) -> None:
    plan = make_plan()
    body = {
        "id": name,
        "owner": {"id": "1", "name": "alice", "type": "user"},
        "status": {"stage": "RUNNING"},
    }
    hub.fail("POST", "/api/jobs/alice", status=200, body=json.dumps(body).encode())
    with pytest.raises(UserError, match="look with hf jobs ps"):
        run_job(plan, console=job_console)


def test_an_unknown_machine_is_refused_with_those_there_are(hub: Hub, make_plan: MakePlan) -> None:
    with pytest.raises(UserError, match="did you mean a10g-small") as refused:
        make_plan("--job.target=a10g-smal")
    assert "cpu-basic: 2 vCPU, $0.01 per hour" in str(refused.value)
    faults: list[dict[str, Any]] = [{"status": 500}, {"status": 200, "body": b"[{}]"}, {}]
    for fault in faults:
        hub.reset_faults()
        hub.fail("GET", "/api/jobs/hardware", times=10, **fault)
        with pytest.raises(UserError, match="h200x8"):  # huggingface_hub's own list
            make_plan("--job.target=a10g-smal")
        assert make_plan().flavor == "a10g-small"
    assert hub.asked("POST", "/api/jobs") == []


@pytest.mark.slow
def test_who_may_not_push_is_told_before_anything_is_sent(hub: Hub, client: Client) -> None:
    hub.add("alice/cubes", tag="v3.0")
    hub.add("alice/secret", tag="v3.0", private=True)

    def refused(*options: str, token: str | None = TOKEN) -> str:
        done = client("command", arguments=["label", *options], token=token)
        assert done["code"] == 2, done
        return done["errors"]

    cubes = ("--repo-id=alice/cubes", *REMOTE)
    assert "hf auth login" in refused(*cubes, token=None)
    assert "refused yours" in refused(*cubes, token="hf_wrong")
    assert "your token may only read" in refused(*cubes, token="hf_reader")
    assert "cannot be seen with your token" in refused(
        "--repo-id=alice/secret", *REMOTE, token="hf_other"
    )
    assert "no such revision 'lables'" in refused(*cubes, "--revision=lables")
    assert "add --push-to-hub" in refused(*cubes[:-1])
    assert "must name a dataset on the Hub" in refused("--repo-id=alice/nowhere", *REMOTE)
    assert "exists and is public" in refused(*cubes, "--private")
    assert not hub.jobs


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"name": 7}', b"<html>"])
def test_a_hub_that_does_not_say_who_is_logged_in_is_refused(
    hub: Hub, make_plan: MakePlan, body: bytes
) -> None:
    hub.fail("GET", "/api/whoami-v2", status=200, body=body, times=10)
    with pytest.raises(UserError, match="whose your token is"):
        make_plan()

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_state import Hub

from lerobot_topreward.hub_errors import translate_errors

pytestmark = pytest.mark.slow

Client = Callable[..., Any]


def test_unknown_dataset_has_two_causes(hub: Hub, client: Client):
    for token in (None, "hf_writer"):
        said = client("load", repo_id="alice/nowhere", token=token)
        assert said.startswith("--repo-id must name a dataset on the Hub")
        assert "'alice/nowhere'" in said
        assert "Check the spelling" in said
        assert "hf auth login" in said


def test_private_dataset_needs_its_owners_token(hub: Hub, client: Client, tmp_path: Path):
    hub.add("alice/secret", private=True)
    assert "is private" in client("refs", repo_id="alice/secret", token=None)
    assert "cannot be seen with your token" in client(
        "refs", repo_id="alice/secret", token="hf_other"
    )
    assert client("refs", repo_id="alice/secret") == ["main"]


def test_gated_dataset_wants_its_terms_accepted(hub: Hub, client: Client):
    hub.add("bob/gated", gated=True)
    for token in (None, "hf_writer"):
        said = client("fetch", repo_id="bob/gated", token=token)
        assert f"Accept its terms at {hub.url}/datasets/bob/gated" in said


def test_unknown_revision_is_named(hub: Hub, client: Client):
    hub.add("alice/cubes")
    said = client("load", repo_id="alice/cubes", revision="lables")
    assert "no such revision 'lables'" in said


def test_dataset_without_version_tag_needs_a_revision(hub: Hub, client: Client):
    hub.add("alice/cubes")
    assert "--revision main" in client("load", repo_id="alice/cubes")


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("v2.1", "convert_dataset_v21_to_v30 --repo-id=alice/cubes"),
        ("v2.0", "older than v2.1"),
        ("v4.0", "Upgrade lerobot"),
    ],
)
def test_other_formats_are_named(hub: Hub, client: Client, tag: str, said: str):
    hub.add("alice/cubes", tag=tag)
    assert said in client("load", repo_id="alice/cubes")


def test_refused_token_is_named(hub: Hub, client: Client):
    hub.add("alice/cubes")
    assert "fix HF_TOKEN" in client("refs", repo_id="alice/cubes", token="hf_gone")


@pytest.mark.parametrize(
    ("status", "said"), [(429, "rate limit"), (503, "answered 503"), (403, "forbade")]
)
def test_hub_in_trouble_is_told(hub: Hub, client: Client, status: int, said: str):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", status=status, times=99)
    assert said in client("refs", repo_id="alice/cubes")


def test_cut_connection_is_a_network_error(hub: Hub, client: Client):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", after=5)
    assert client("refs", repo_id="alice/cubes") == ["main"]
    hub.fail("GET", "/refs", after=5, times=99)
    said = client("refs", repo_id="alice/cubes")
    assert f"{hub.url} cannot be reached (RemoteProtocolError" in said
    assert "5 tries over 15 s" in said


def test_hub_that_never_answers_is_given_up(hub: Hub, client: Client):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", wait_s=5, status=200)
    assert "cannot be reached (ReadTimeout" in client("refs", repo_id="alice/cubes")


@pytest.mark.parametrize(
    ("headers", "waits"),
    [
        ({}, [1, 2, 4]),
        ({"Retry-After": "3"}, [3, 3, 4]),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, [1, 2, 4]),
        ({"RateLimit": '"api";r=0;t=20'}, [21, 21, 21]),
        ({"RateLimit": '"api";r=7;t=20'}, [1, 2, 4]),
    ],
)
def test_busy_hub_is_asked_again_when_it_wishes(
    hub: Hub, client: Client, headers: dict[str, str], waits: list[float]
):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", status=429, headers=headers, times=3)
    assert client("refs", repo_id="alice/cubes") == ["main"]
    assert client("waited") == waits


def test_nobody_waits_an_hour(hub: Hub, client: Client):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", status=429, headers={"Retry-After": "3600"})
    assert "rate limit" in client("refs", repo_id="alice/cubes")
    assert client("waited") == []


def test_nobody_at_the_other_end(client: Client):
    said = client("fetch", repo_id="alice/cubes", endpoint="http://127.0.0.1:9", option="model")
    assert said.startswith("--model 'alice/cubes' needs the Hub")
    assert "Check the network" in said


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), translate_errors(repo_id="alice/cubes"):
        _ = 1 / 0


@pytest.mark.parametrize("home", ["a file", "/dev/full/home", "/proc/home"])
def test_home_that_cannot_be_used_is_named(
    hub: Hub, record_dataset: Callable[..., Path], tmp_path: Path, home: str
):
    hub.add("alice/cubes", record_dataset(lengths=(4,), cameras=()), tag="v3.0")
    (tmp_path / "a file").write_text("")
    ran = subprocess.run(
        [sys.executable, "-m", "lerobot_topreward", "label", "--repo-id", "alice/cubes"],
        env=os.environ | hub.environment(tmp_path / home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "HF_HOME" in ran.stderr
    assert str(tmp_path / home) in ran.stderr
    assert "Traceback" not in ran.stderr

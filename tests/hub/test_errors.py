from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_state import Hub

from lerobot_topreward.hub import translate_errors

Client = Callable[..., Any]


@pytest.mark.slow
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
    assert "mend HF_TOKEN" in client("refs", repo_id="alice/cubes", token="hf_gone")


@pytest.mark.parametrize(
    ("status", "said"), [(429, "rate limit"), (503, "answered 503"), (403, "forbade")]
)
def test_hub_in_trouble_is_told(hub: Hub, client: Client, status: int, said: str):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", status=status)
    assert said in client("refs", repo_id="alice/cubes")


def test_cut_connection_is_a_network_error(hub: Hub, client: Client):
    hub.add("alice/cubes")
    hub.fail("GET", "/refs", after=5)
    said = client("refs", repo_id="alice/cubes")
    assert f"{hub.url} cannot be reached (RemoteProtocolError" in said


def test_nobody_at_the_other_end(client: Client):
    said = client("fetch", repo_id="alice/cubes", endpoint="http://127.0.0.1:9", option="--model")
    assert said.startswith("--model 'alice/cubes' needs the Hub")
    assert "Check the network" in said


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), translate_errors(repo_id="alice/cubes"):
        _ = 1 / 0

"""Pushes that are refused, and that change nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hub_state import Hub
from pushes import Client, write_labels

pytestmark = pytest.mark.slow


def test_broken_card_is_the_users_to_mend(hub: Hub, push: Client, source: Path, tmp_path: Path):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    (folder / "README.md").write_text("---\ntags: [a\n---\n")
    hub.add("alice/cubes", folder)
    assert "refuses the front matter of its README.md" in push()
    assert not hub.asked("PUT")


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("hf_reader", "Take a token with write access"),
        ("hf_other", "Take a token with write access"),
        ("hf_gone", "the Hub refused yours"),
        (None, "none was found. Log in: hf auth login"),
    ],
)
def test_token_that_may_not_write_is_named(
    hub: Hub, push: Client, source: Path, token: str | None, said: str
):
    hub.add("alice/cubes", source)
    refused = push(token=token)
    assert refused.startswith("--hub-repo-id ")
    assert said in refused


def test_another_dataset_is_not_overwritten(hub: Hub, push: Client, source: Path, tmp_path: Path):
    folder = tmp_path / "bigger"
    shutil.copytree(source, folder)
    info = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(info | {"total_episodes": 40}))
    hub.add("alice/other", folder)
    hub.add("alice/cubes", folder)
    for options in ({"repo_id": "alice/other"}, {"branch": "main"}, {"create_pr": True}):
        assert "must not hold another dataset on 'main'; it has 40 episodes" in push(**options)
    assert not hub.asked("PUT")
    assert push()["branch"] == "topreward"


def test_incomplete_folder_is_refused(hub: Hub, push: Client, labelled: Path, tmp_path: Path):
    folder = tmp_path / "partial"
    shutil.copytree(labelled, folder)
    shutil.rmtree(folder / "videos")
    said = push(repo_id="alice/new", folder=folder)
    assert "videos/observation.images.front/chunk-000/file-000.mp4" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"branch": "v3.1"}, "must not look like a version"),
        ({"branch": "x", "create_pr": True}, "pull request against main"),
        ({"private": True}, "exists and is public"),
        ({"repo_id": "alice cubes"}, "must look like owner/name"),
        ({"repo_id": "alice/none", "create_pr": True}, "on the Hub already"),
        ({"provenance": {"dataset": "a/local"}, "repo_id": "a/local"}, "on the Hub already"),
    ],
)
def test_contradictory_options_change_nothing(
    hub: Hub, push: Client, source: Path, options: dict[str, Any], said: str
):
    hub.add("alice/cubes", source)
    assert said in push(**options)
    assert not hub.asked("POST")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("recordings", "none of your recordings"),
        ("features", "its features differ in observation.state"),
        ("camera", "its features differ in observation.images.front, observation.images.wrist"),
        ("tasks", "none of your tasks"),
    ],
)
@pytest.mark.parametrize("labelled_there", [False, True])
def test_another_dataset_of_equal_size_is_not_overwritten(
    hub: Hub,
    push: Client,
    others: dict[str, Path],
    tmp_path: Path,
    other: str,
    said: str,
    labelled_there: bool,
):
    if labelled_there:
        theirs = write_labels(others[other], tmp_path / "theirs")
        push(repo_id="alice/other", folder=theirs, provenance={"dataset": "alice/theirs"})
    else:
        hub.add("alice/other", others[other])
        said = said if other != "recordings" else "not the one that you labeled"
    before = hub.dataset("alice/other").resolve("main")
    hub.requests.clear()
    refused = push(repo_id="alice/other")
    assert "must not hold another dataset on 'main'; it has 2 episodes of 11 frames" in refused
    assert said in refused
    assert not hub.asked("PUT")
    assert hub.dataset("alice/other").resolve("main") is before
    assert push(repo_id="alice/other", branch="mine")["branch"] == "mine"


def test_another_dataset_on_a_branch_of_the_source_is_not_overwritten(
    hub: Hub, push: Client, source: Path, others: dict[str, Path]
):
    repo = hub.add("alice/cubes", source)
    files = hub.add("alice/other", others["recordings"]).resolve("main").files
    repo.commit("refs/heads/topreward", "Another dataset", files, parent=None)
    assert "must not hold another dataset on 'topreward'" in push()


@pytest.mark.parametrize(
    ("user", "repo_id", "said"),
    [
        ({"role": "read"}, "alice/new", "your token may only read"),
        ({}, "bob/new", "your token may not create it for 'bob'"),
        ({}, "lab/new", None),
        ({"roleInOrg": "read"}, "lab/new", "your token may not create it for 'lab'"),
        ({"scoped": []}, "alice/new", "your token may not create it for 'alice'"),
        ({"scoped": ["repo.content.read"]}, "alice/new", "your token may not create it"),
        ({"scoped": ["repo.write"]}, "alice/new", None),
        ({"scoped": None}, "alice/new", None),
        ({}, "bob/cubes", "the Hub forbade it (403)"),
        ({}, "", "--hub-repo-id is empty"),
        ({}, "cubes", "--hub-repo-id must look like OWNER/NAME"),
    ],
)
def test_right_to_write_is_known_before_the_vlm_is_loaded(
    hub: Hub,
    client: Client,
    source: Path,
    tmp_path: Path,
    user: dict[str, Any],
    repo_id: str,
    said: str | None,
):
    hub.add("bob/cubes")
    token: dict[str, Any] = {"role": user.get("role", "write")}
    if "scoped" in user:
        scope = {"entity": {"type": "user", "name": "alice"}, "permissions": user["scoped"]}
        token = {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}
        if user["scoped"] is None:
            token["fineGrained"] = {}
    org = {"name": "lab", "roleInOrg": user.get("roleInOrg", "write")}
    whoami = {"name": "alice", "orgs": [org], "auth": {"accessToken": token}}
    hub.fail("GET", "/whoami", status=200, body=json.dumps(whoami).encode(), times=99)
    arguments = ["label", "--root", str(source), "--output", str(tmp_path / "output")]
    arguments += ["--vlm", "/nowhere", "--push-to-hub", "--hub-repo-id", repo_id]
    ran = client("command", arguments=arguments)
    assert ran["code"] == 2
    assert (said or "--vlm") in ran["errors"]
    assert not (tmp_path / "output").exists()
    assert not hub.asked("POST")


@pytest.mark.parametrize("command", ["label", "curate"])
@pytest.mark.parametrize(
    ("options", "token", "said"),
    [
        ((), None, "none was found. Log in: hf auth login"),
        ((), "hf_gone", "the Hub refused yours"),
        (("--private",), "hf_writer", "exists and is public"),
        ((), "hf_writer", "must not hold another dataset on 'main'"),
        (("--create-pr",), "hf_writer", "must not hold another dataset on 'main'"),
        (("--hub-repo-id", "alice/none", "--create-pr"), "hf_writer", "on the Hub already"),
    ],
)
def test_refused_push_is_known_before_anything_is_written(
    hub: Hub,
    client: Client,
    others: dict[str, Path],
    labelled_by_us: Path,
    tmp_path: Path,
    command: str,
    options: tuple[str, ...],
    token: str | None,
    said: str,
):
    hub.add("alice/other", others["recordings"])
    vlm = ("--vlm", "/nowhere") if command == "label" else ("--keep-top", "0.5")
    given = ("--root", labelled_by_us, "--output", tmp_path / "output", *vlm, "--push-to-hub")
    to = () if "--hub-repo-id" in options else ("--hub-repo-id", "alice/other")
    arguments = [command, *map(str, given), *to, *options]
    ran = client("command", arguments=arguments, token=token)
    assert ran["code"] == 2
    assert said in ran["errors"]
    assert not (tmp_path / "output").exists()
    assert not hub.asked("POST")

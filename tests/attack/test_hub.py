"""A Hub that refuses, cuts, hangs and talks nonsense: labels stay, it is said, the next run ends it."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_faults import (
    AGAIN,
    CUTS,
    NONSENSE,
    PUSH,
    READ,
    Case,
    check_said,
    params,
    passing_cases,
    status_cases,
)
from hub_fixtures import client, client_process, hub, hub_server
from hub_state import Hub
from provenance import provenance

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns

__all__ = ["client", "client_process", "hub", "hub_server"]

KIND = "Hub answers and cuts"
pytestmark = pytest.mark.slow
Client = Callable[..., Any]


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


@pytest.fixture(scope="module")
def source(record_dataset: Callable[..., Path]) -> Path:
    return record_dataset(lengths=(4, 3), cameras=("front",), size=(64, 64))


@pytest.fixture(scope="module")
def labelled(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    opened = open_source(repo_id=None, root=source, revision=None)
    frames = opened.frames
    nats = -np.arange(len(frames.index), dtype=np.float32)
    rewards = FrameRewards(
        index=frames.index,
        episode_index=frames.episode_index,
        frame_index=frames.frame_index,
        labelled=np.ones(len(nats), dtype=bool),
        log_prob_true=nats,
        log_prob_false=nats,
        progress=np.linspace(0, 1, len(nats), dtype=np.float32),
        advantage=np.zeros(len(nats), dtype=np.float32),
        scored=np.ones(len(nats), dtype=bool),
    )
    output = tmp_path_factory.mktemp("attacked") / "labelled"
    fingerprint = opened.fingerprints.dataset
    write_columns(source, rewards, output, fingerprint=fingerprint, provenance=provenance())
    assert pq.read_table(output / "data").num_rows == len(nats)
    return output


MADE = provenance(dataset="alice/source", revision=None, episodes_labelled=2, episodes_total=2)
FACTS = CardFacts(MADE, fps=10)


@pytest.mark.parametrize(
    "case",
    params(status_cases(PUSH) + passing_cases(PUSH) + CUTS + NONSENSE),
)
def test_push_survives(hub: Hub, client: Client, labelled: Path, case: Case) -> None:
    before = tree_hash(labelled)
    push = {"folder": str(labelled), "facts": asdict(FACTS), "repo_id": "alice/labels"}
    hub.fail(*case.request, **case.fault, times=case.times)
    first = client("push", **push)
    if case.said:
        check_said(first, case)
    else:
        assert isinstance(first, dict), first
        assert first["uploaded"], first
    hub.reset_faults()
    second = client("push", **push)
    assert isinstance(second, dict), second
    assert second["branch"] == "main"
    files = hub.dataset("alice/labels").resolve("main").files
    held = {path: hashlib.sha256(blob.data).hexdigest() for path, blob in files.items()}
    for path in ("data/chunk-000/file-000.parquet", "topreward_progress.parquet"):
        assert held[path] == hashlib.sha256((labelled / path).read_bytes()).hexdigest()
    assert tree_hash(labelled) == before


@pytest.mark.parametrize("case", params(status_cases(AGAIN) + passing_cases(AGAIN)))
def test_push_of_a_later_state_survives(
    hub: Hub, client: Client, labelled: Path, case: Case, request: pytest.FixtureRequest
) -> None:
    # A name of its own, or the client's cache would answer.
    repo_id = f"alice/r{hashlib.sha1(request.node.name.encode()).hexdigest()[:8]}"
    hub.add(repo_id, labelled, tag="v3.0")
    push = {"folder": str(labelled), "facts": asdict(FACTS), "repo_id": repo_id}
    hub.fail(*case.request, **case.fault, times=case.times)
    first = client("push", **push)
    tolerated = case.request == AGAIN["auth"] and "404" in case.name  # a Hub that has no such page
    if case.said and not tolerated and not isinstance(first, dict):
        check_said(first, case)
    else:
        assert first["uploaded"] == 1, first  # the card
    hub.reset_faults()
    assert client("push", **push)["branch"] == "main"


@pytest.mark.parametrize(
    "case",
    params(status_cases(READ, what=" of a dataset") + passing_cases(READ, what=" of a dataset")),
)
def test_reading_survives(
    hub: Hub,
    client: Client,
    source: Path,
    tmp_path: Path,
    case: Case,
    request: pytest.FixtureRequest,
) -> None:
    repo_id = f"alice/s{hashlib.sha1(request.node.name.encode()).hexdigest()[:8]}"
    hub.add(repo_id, source, tag="v3.0")
    output = tmp_path / "output"
    arguments = ["label", "--repo-id", repo_id, "--output", str(output), "--vlm", "/nowhere"]
    hub.fail(*case.request, **case.fault, times=case.times)
    ran = client("command", arguments=arguments)
    assert ran["code"] == 2
    expected = case.said or ("--vlm",)
    assert any(words in ran["errors"] for words in expected), ran["errors"]
    assert not output.exists()
    hub.reset_faults()
    assert "--vlm" in client("command", arguments=arguments)["errors"]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("report", "--output"),
        ("report", "--rerun"),
        ("label", "--output"),
        ("curate", "--output"),
        ("curate", "--episodes-file"),
    ],
)
@pytest.mark.parametrize("place", ["pipe.rrd", "file/below.rrd", "/dev/full/below.rrd"])
def test_output_that_no_file_can_be(
    client: Client,
    source: Path,
    labelled: Path,
    tiny_vlm: Path,
    tmp_path: Path,
    command: str,
    option: str,
    place: str,
) -> None:
    os.mkfifo(tmp_path / "pipe.rrd")
    (tmp_path / "file").write_text("mine")
    more = {"curate": ["--keep-top", "0.5"], "label": ["--vlm", str(tiny_vlm)], "report": []}
    root = source if command == "label" else labelled
    if option == "--rerun":
        pytest.importorskip("rerun")
        more["report"] = ["--output", str(tmp_path / "report.html")]
    arguments = [command, "--root", str(root), option, str(tmp_path / place), *more[command]]
    ran = client("command", arguments=arguments)
    assert ran["code"] == 2
    assert ran["errors"].startswith("error: ")
    assert str(tmp_path / place) in ran["errors"]
    assert ran["errors"].count("\n") <= 2
    assert (tmp_path / "pipe.rrd").is_fifo()
    assert (tmp_path / "file").read_text() == "mine"

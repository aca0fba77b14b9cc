"""A Hub that refuses, cuts, hangs and talks nonsense: labels stay, it is said, the next run ends it."""

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from hub_fixtures import client, client_process, hub, hub_server
from hub_state import Hub

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.publish.card import CardFacts
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.key import ScoreKey

__all__ = ["client", "client_process", "hub", "hub_server"]

KIND = "Hub answers and cuts"
pytestmark = pytest.mark.slow
Client = Callable[..., Any]

# Every request of a push to a repository that is new, or that holds an earlier push (again).
PUSH = {
    "whoami": ("GET", "/whoami-v2"),
    "repository": ("GET", "/api/datasets/alice/[^/]+$"),
    "create": ("POST", "/api/repos/create"),
    "head": ("GET", "/revision/"),
    "tree": ("GET", "/tree/"),
    "card": ("POST", "/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/objects/batch"),
    "upload": ("PUT", "/lfs/"),
    "commit": ("POST", "/commit/"),
    "tag": ("POST", "/tag/"),
}
AGAIN = {
    "auth": ("GET", "/auth-check/write"),
    "refs": ("GET", "/refs$"),
    "meta": ("HEAD", "/resolve/.*/meta/"),
    "readme": ("GET", "/resolve/.*/README.md"),
}
# Every request of opening a dataset.
READ = {
    "refs": ("GET", "/refs$"),
    "head": ("GET", "/revision/"),
    "tree": ("GET", "/tree/"),
    "metadata": ("HEAD", "/resolve/.*/meta/info.json"),
    "file": ("GET", "/resolve/.*/meta/info.json"),
    "data": ("GET", "/resolve/.*/data/"),
}
STATUSES = (
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    410,
    412,
    413,
    416,
    418,
    422,
    429,
    431,
    451,
    *range(500, 506),
    507,
    508,
    511,
    599,
)
SOME = (400, 401, 403, 404, 409, 429, 500, 503)  # where others would say the same
RETRIED = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    request: tuple[str, str]  # method, pattern of the path
    fault: Mapping[str, Any] = field(default_factory=dict)
    times: int = 99
    said: tuple[str, ...] = ()  # one of them is in the message; empty where it must succeed


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


MADE = {
    "scoring": ScoreKey(
        vlm="v",
        vlm_revision="r",
        dtype="float32",
        prompt="p",
        camera="observation.images.front",
    ).to_json(),
    "normalize": "episode",
    "scale": "log-prob",
    "horizon_frames": 10,
}
FACTS = CardFacts(
    {
        **MADE,
        "dataset": "alice/source",
        "revision": None,
        "episodes_labelled": 2,
        "episodes_total": 2,
    },
    fps=10,
)


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
    write_columns(source, rewards, output, fingerprint=fingerprint, provenance=MADE)
    assert pq.read_table(output / "data").num_rows == len(nats)
    return output


# A case takes a second of the processor: these, which differ most, run always.
SAID = (
    "rate limit",
    "Somebody",
    "someone else",
    "the Hub refused yours",
    "front matter",
    "not the Hub's",
)


def status_cases(requests: Mapping[str, tuple[str, str]], *, what: str = "") -> list[Case]:
    """Every status at a commit and where files are listed, and some at every other request."""
    return [
        Case(
            f"{where}{what} {status}",
            request,
            {"status": status},
            # A tag that is there already is what was wanted.
            said=() if (where, status) == ("tag", 409) else (str(status), *SAID),
        )
        for where, request in requests.items()
        for status in (STATUSES if where in ("commit", "tree") else SOME)
    ]


def passing_cases(requests: Mapping[str, tuple[str, str]], *, what: str = "") -> list[Case]:
    """A trouble that passes is not even noticed."""
    return [
        Case(f"{where}{what} {status} once", request, {"status": status}, times=1)
        for where, request in requests.items()
        for status in (RETRIED if where in ("commit", "tree") else (429, 503))
    ]


CUTS = [
    *(
        Case(f"{where} cut after {after} bytes {count}", PUSH[where], {"after": after}, times, said)
        for where, after in (
            ("whoami", 0),
            ("repository", 9),
            ("create", 0),
            ("head", 30),
            ("tree", 100),
            ("card", 1),
            ("preupload", 0),
            ("preupload", 50),
            ("batch", 20),
            ("upload", 0),
            ("upload", 500),
            ("commit", 0),
            ("commit", 20),
            ("commit", 900),
            ("tag", 0),
        )
        for count, times, said in (("once", 1, ()), ("always", 99, ("cannot be reached",)))
    ),
]
HTML = b"<html>Welcome to our hotel: accept the terms to use the network</html>"
NONSENSE = [
    *(
        Case(
            f"{where} answers {what!r}",
            PUSH[where],
            {"status": 200, "body": what},
            said=("is not the Hub's", "whose your token is", "does not name its commit"),
        )
        for where in ("whoami", "repository", "head", "tree", "preupload", "batch", "commit")
        for what in (HTML, b"", b"{}", b'{"', b"null", b"[3]", b"\xff\xfe")
        if (where, what) not in ((("tree"), b"{}"),)  # an empty listing, which is none of nonsense
    ),
    *(
        Case(
            f"{where} goes round in circles",
            PUSH[where],
            {"status": 307, "headers": {"Location": "?again"}, "body": b""},
            said=("TooManyRedirects", "Location", "Redirect", "307", "is not the Hub's"),
        )
        for where in ("whoami", "tree", "preupload", "commit")
    ),
    *(
        Case(
            f"{where} promises more than comes",
            PUSH[where],
            {"status": 200, "headers": {"Content-Length": "5000"}, "body": b"{}"},
            said=("cannot be reached",),
        )
        for where in ("whoami", "tree", "commit")
    ),
    *(
        Case(
            f"{where} never answers",
            PUSH[where],
            {"status": 200, "wait_s": 4},
            said=("cannot be reached (ReadTimeout",),
        )
        for where in ("whoami", "tree", "preupload", "upload", "commit")
    ),
]


def params(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def check_said(said: Any, case: Case) -> None:
    assert isinstance(said, str), said
    assert any(words in said for words in case.said), said
    assert said.count("\n") <= 1, said
    assert "Traceback" not in said


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

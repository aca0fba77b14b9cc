import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_state import Blob, Hub, Repo

from lerobot_topreward.data.dataset import Source, open_source
from lerobot_topreward.publish.card import START, CardFacts
from lerobot_topreward.records import FrameRewards
from lerobot_topreward.storage.columns import write_columns
from lerobot_topreward.storage.key import ScoreKey

Client = Callable[..., Any]
COLUMNS = {f"topreward.{name}" for name in ("log_prob", "progress", "advantage", "labelled")}
CHANGED = {
    "README.md",
    "data/chunk-000/file-000.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/info.json",
    "meta/stats.json",
    "topreward_progress.parquet",
}
PROVENANCE = {
    "dataset": "alice/cubes",
    "revision": None,
    "scoring": ScoreKey(
        vlm="Qwen/Qwen3-VL-8B-Instruct",
        vlm_revision="d" * 40,
        dtype="float32",
        prompt="p",
        camera="observation.images.front",
    ).to_json(),
    "normalize": "episode",
    "scale": "log-prob",
    "horizon_frames": 10,
    "episodes_labelled": 2,
    "episodes_total": 2,
}


def opened(root: Path) -> Source:
    return open_source(repo_id=None, root=root, revision=None)


def write_labels(
    source: Path,
    output: Path,
    *,
    log_prob: float = -1.0,
    fingerprint: str = "f" * 64,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    frames = pq.read_table(source / "data", columns=["index", "episode_index", "frame_index"])
    index, episode, frame = (column.to_numpy() for column in frames.columns)
    values = np.full(len(index), log_prob, dtype=np.float32)
    rewards = FrameRewards(
        index=index,
        episode_index=episode,
        frame_index=frame,
        labelled=np.ones(len(index), dtype=bool),
        log_prob_true=values,
        log_prob_false=values * 2,
        progress=np.linspace(0, 1, len(index), dtype=np.float32),
        advantage=np.zeros(len(index), dtype=np.float32),
        scored=np.ones(len(index), dtype=bool),
    )
    write_columns(source, rewards, output, fingerprint=fingerprint, provenance=provenance or {})
    return output


@pytest.fixture(scope="session")
def source(record_dataset: Callable[..., Path]) -> Path:
    return record_dataset(lengths=(6, 5), cameras=("front",))


@pytest.fixture(scope="session")
def labelled(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_labels(source, tmp_path_factory.mktemp("labelled") / "dataset")
    (folder / "topreward" / "key").mkdir(parents=True)
    (folder / "topreward" / "key" / "episode_000000.parquet").write_bytes(b"raw scores")
    return folder


@pytest.fixture(scope="session")
def labelled_by_us(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `labelled`, with the provenance that curate reads."""
    fingerprint = opened(source).fingerprints.dataset
    folder = tmp_path_factory.mktemp("by-us") / "dataset"
    made = {name: value for name, value in PROVENANCE.items() if name != "dataset"}
    return write_labels(source, folder, fingerprint=fingerprint, provenance=made)


@pytest.fixture
def push(client: Client, labelled: Path) -> Client:
    def ask(*, repo_id: str = "alice/cubes", folder: Path = labelled, **options: Any) -> Any:
        provenance = PROVENANCE | options.pop("provenance", {})
        options["facts"] = asdict(CardFacts(provenance, fps=10))
        return client("push", repo_id=repo_id, folder=str(folder), **options)

    return ask


def files_at(repo: Repo, revision: str) -> dict[str, bytes]:
    return {path: blob.data for path, blob in repo.resolve(revision).files.items()}


def changed_between(repo: Repo, before: str, after: str) -> set[str]:
    old, new = files_at(repo, before), files_at(repo, after)
    return {path for path in old | new if old.get(path) != new.get(path)}


def sent_blobs(hub: Hub) -> list[str]:
    return sorted(path.rsplit("/", 1)[1] for path in hub.asked("PUT"))


def hashes(folder: Path, *paths: str) -> list[str]:
    return sorted(hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in paths)


LFS = sorted(path for path in CHANGED if path.endswith(".parquet"))


def test_labels_go_to_a_branch_of_the_source(
    hub: Hub, push: Client, client: Client, source: Path, labelled: Path
):
    repo = hub.add("alice/cubes", source, tag="v3.0")
    before = dict(repo.refs)
    pushed = push(provenance={"revision": repo.refs["refs/heads/main"]})

    assert pushed["branch"] == "topreward"
    assert pushed["url"] == f"{hub.url}/datasets/alice/cubes/tree/topreward"
    assert pushed["uploaded"] == len(CHANGED)
    assert changed_between(repo, "main", "topreward") == CHANGED
    assert sent_blobs(hub) == hashes(labelled, *LFS)
    assert {**before, "refs/heads/topreward": pushed["commit"]} == repo.refs

    for revision in ("topreward", pushed["commit"]):
        loaded = client("load", repo_id="alice/cubes", revision=revision)
        assert set(loaded["columns"]) >= COLUMNS
        assert loaded["rewards"] == pytest.approx(
            {
                "topreward.log_prob": -1,
                "topreward.log_prob_false": -2,
                "topreward.progress": 1,
                "topreward.advantage": 0,
                "topreward.labelled": 1,
                "topreward.scored": 1,
            }
        )
    for revision in (None, "main"):
        assert not COLUMNS & set(
            client("load", repo_id="alice/cubes", revision=revision)["columns"]
        )


def test_pushing_again_sends_and_commits_nothing(hub: Hub, push: Client, source: Path):
    hub.add("alice/cubes", source, tag="v3.0")
    first = push()
    hub.requests.clear()
    assert push() == first | {"uploaded": 0, "deleted": 0, "unchanged": True}
    assert not hub.asked("PUT")
    assert not hub.asked("POST")


def test_new_repository_holds_all_that_lerobot_needs(
    hub: Hub, push: Client, client: Client, labelled: Path
):
    pushed = push(repo_id="alice/cubes-labelled", private=True)
    repo = hub.dataset("alice/cubes-labelled")
    assert pushed["branch"] == "main"
    assert repo.private
    assert repo.refs["refs/tags/v3.0"] == pushed["commit"]
    expected = {
        path.relative_to(labelled).as_posix()
        for part in ("data", "meta", "videos")
        for path in (labelled / part).rglob("*")
        if path.is_file()
    }
    assert set(files_at(repo, "main")) - {".gitattributes"} == expected | CHANGED
    loaded = client("load", repo_id="alice/cubes-labelled")
    assert (loaded["revision"], loaded["frames"]) == ("v3.0", 11)
    assert set(loaded["columns"]) >= COLUMNS


def test_tags_of_an_existing_repository_stay(hub: Hub, push: Client, source: Path, tmp_path: Path):
    first = push(repo_id="alice/other")
    folder = write_labels(source, tmp_path / "again", log_prob=-2)
    second = push(repo_id="alice/other", folder=folder)
    assert second["uploaded"] == len({*LFS, "meta/stats.json"})
    assert hub.dataset("alice/other").refs["refs/tags/v3.0"] == first["commit"]


def test_card_of_the_repository_is_kept(hub: Hub, push: Client, source: Path, tmp_path: Path):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# My cubes\n")
    repo = hub.add("alice/cubes", folder)
    push(branch="labels")
    card = files_at(repo, "labels")["README.md"].decode()
    assert card.startswith("---\nlicense: mit\ntags:\n- LeRobot\n- topreward\n")
    assert "# My cubes" in card
    assert START in card
    assert 'LeRobotDataset("alice/cubes", revision="labels")' in card


def test_broken_card_is_the_users_to_mend(hub: Hub, push: Client, source: Path, tmp_path: Path):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    (folder / "README.md").write_text("---\ntags: [a\n---\n")
    hub.add("alice/cubes", folder)
    assert "refuses the front matter of its README.md" in push()
    assert not hub.asked("PUT")


def test_files_that_the_dataset_lost_are_deleted_and_foreign_ones_kept(
    hub: Hub, push: Client, source: Path, tmp_path: Path
):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    stale = ("data/chunk-000/file-001.parquet", "meta/episodes/chunk-001/file-000.parquet")
    foreign = ("meta/notes.json", "extra.parquet", "data/readme.txt")
    for path in (*stale, *foreign):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    repo = hub.add("alice/cubes", folder)
    assert push()["deleted"] == len(stale)
    assert changed_between(repo, "main", "topreward") == CHANGED | set(stale)


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


def test_commit_in_between_is_taken_into_account(hub: Hub, push: Client, source: Path):
    repo = hub.add("alice/cubes", source)
    main = repo.resolve("main")
    theirs = {**main.files, "README.md": Blob(b"# Theirs\n", lfs=False)}
    hub.meanwhile["/api/datasets/alice/cubes/commit/topreward"] = lambda: repo.commit(
        "refs/heads/topreward", "A card", theirs, parent=main
    )
    pushed = push()
    assert changed_between(repo, "main", "topreward") == CHANGED
    assert b"# Theirs" in files_at(repo, "topreward")["README.md"]
    assert repo.refs == {"refs/heads/main": main.sha, "refs/heads/topreward": pushed["commit"]}
    assert len(hub.asked("PUT")) == len(LFS)


def test_busy_branch_is_given_up(hub: Hub, push: Client, source: Path):
    hub.add("alice/cubes", source)
    hub.fail("POST", "/commit/", status=412, times=2)
    assert "someone else keeps committing to 'topreward'" in push()


def test_upload_goes_on_where_the_connection_was_cut(
    hub: Hub, push: Client, source: Path, labelled: Path
):
    repo = hub.add("alice/cubes", source)
    hub.fail("PUT", "/lfs/", after=100)
    hub.fail("POST", "/commit/", after=20, times=99)
    assert "cannot be reached" in push()
    assert sent_blobs(hub) == hashes(labelled, *LFS)
    hub.reset_faults()
    assert push()["uploaded"] == len(CHANGED)
    assert sent_blobs(hub) == []
    assert changed_between(repo, "main", "topreward") == CHANGED


def test_upload_sends_only_what_has_not_arrived(
    hub: Hub, push: Client, source: Path, labelled: Path
):
    hub.add("alice/cubes", source)
    data = hashes(labelled, "data/chunk-000/file-000.parquet")
    hub.fail("PUT", data[0], status=403)
    assert push().startswith("--hub-repo-id ")
    hub.requests.clear()
    push()
    assert sent_blobs(hub) == data


def test_pull_request_leaves_main_alone_and_is_opened_once(
    hub: Hub, push: Client, source: Path, tmp_path: Path
):
    repo = hub.add("alice/cubes", source, tag="v3.0")
    main = repo.refs["refs/heads/main"]
    first = push(token="hf_other", create_pr=True)
    assert first["branch"] == "refs/pr/1"
    assert first["url"].endswith("/datasets/alice/cubes/discussions/1")
    assert changed_between(repo, "main", "refs/pr/1") == CHANGED
    assert push(token="hf_other", create_pr=True) == first | {"uploaded": 0, "unchanged": True}
    folder = write_labels(source, tmp_path / "again", log_prob=-2)
    assert push(token="hf_other", create_pr=True, folder=folder)["branch"] == "refs/pr/1"
    assert set(repo.refs) == {"refs/heads/main", "refs/tags/v3.0", "refs/pr/1"}
    assert repo.refs["refs/heads/main"] == main


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


def test_videos_may_be_on_the_hub_alone(
    hub: Hub, push: Client, source: Path, labelled: Path, tmp_path: Path
):
    folder = tmp_path / "partial"
    shutil.copytree(labelled, folder)
    shutil.rmtree(folder / "videos")
    repo = hub.add("alice/cubes", source)
    assert push(folder=folder)["uploaded"] == len(CHANGED)
    assert changed_between(repo, "main", "topreward") == CHANGED


def test_branch_gets_the_videos_of_the_commit_that_was_labelled(
    hub: Hub, push: Client, source: Path, labelled: Path, tmp_path: Path
):
    folder = tmp_path / "partial"
    shutil.copytree(labelled, folder)
    shutil.rmtree(folder / "videos")
    repo = hub.add("alice/cubes", source)
    main = repo.resolve("main")
    video = "videos/observation.images.front/chunk-000/file-000.mp4"
    old = {**main.files, video: Blob(b"recorded before", lfs=True)}
    repo.commit("refs/heads/topreward", "Older labels", old, parent=main)
    options = {"folder": folder, "provenance": {"revision": main.sha}}
    push(**options)
    assert changed_between(repo, "main", "topreward") == CHANGED
    assert sent_blobs(hub) == hashes(labelled, *LFS)
    assert push(**options)["unchanged"]


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


@pytest.fixture(scope="session")
def others(record_dataset: Callable[..., Path]) -> dict[str, Path]:
    """Datasets with as many episodes and frames as `source`, and its later self."""
    one_camera = {"lengths": (6, 5), "cameras": ("front",)}
    return {
        "recordings": record_dataset(**one_camera, seed=1),
        "features": record_dataset(**one_camera, state=7),
        "camera": record_dataset(lengths=(6, 5), cameras=("wrist",)),
        "tasks": record_dataset(**one_camera, tasks=("drop the cube",)),
        "grown": record_dataset(lengths=(6, 5, 4), cameras=("front",)),
    }


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


@pytest.mark.parametrize("repo_id", ["alice/cubes", "alice/labels"])
def test_later_state_replaces_an_earlier_push(
    hub: Hub, push: Client, source: Path, others: dict[str, Path], tmp_path: Path, repo_id: str
):
    hub.add("alice/cubes", source)
    first = push(repo_id=repo_id)
    grown = write_labels(others["grown"], tmp_path / "grown")
    second = push(repo_id=repo_id, folder=grown)
    assert second["branch"] == first["branch"]
    assert second["uploaded"] == len(CHANGED)  # the video, but not the card
    assert push(repo_id=repo_id, folder=grown)["unchanged"]


def test_data_are_not_fetched_where_the_sidecar_says_enough(
    hub: Hub, push: Client, source: Path, tmp_path: Path
):
    fingerprint = opened(source).fingerprints.dataset
    folder = write_labels(source, tmp_path / "first", fingerprint=fingerprint)
    push(repo_id="alice/labels", folder=folder)
    hub.requests.clear()
    again = write_labels(source, tmp_path / "again", fingerprint=fingerprint, log_prob=-2)
    assert push(repo_id="alice/labels", folder=again)["uploaded"]
    assert not [path for path in hub.asked("GET", "/resolve/") if "/data/" in path]


def test_a_copy_without_labels_gets_them(hub: Hub, push: Client, source: Path):
    repo = hub.add("alice/copy", source)
    assert push(repo_id="alice/copy")["branch"] == "main"
    parent = repo.resolve("main").parent
    assert parent is not None
    assert changed_between(repo, parent.sha, "main") == CHANGED


def test_name_in_other_letters_is_the_source_all_the_same(hub: Hub, push: Client, source: Path):
    repo = hub.add("alice/cubes", source)
    hub.repos["datasets", "Alice/Cubes"] = repo
    assert push(repo_id="Alice/Cubes")["branch"] == "topreward"


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

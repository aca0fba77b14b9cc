"""What a push brings to the Hub, and what it leaves alone."""

import shutil
from pathlib import Path

import pytest
from hub_state import Blob, Hub
from pushes import (
    CHANGED,
    COLUMNS,
    LFS,
    Client,
    changed_between,
    files_at,
    hashes,
    opened,
    sent_blobs,
    write_labels,
)

from lerobot_topreward.publish.card import START

pytestmark = pytest.mark.slow


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

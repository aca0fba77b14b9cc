"""Labelled datasets to the Hub: only what changed, in one commit, on a branch of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from lerobot.datasets.io_utils import load_info
from lerobot.datasets.utils import INFO_PATH, DatasetInfo

from lerobot_topreward.card import START, CardFacts, card_section, merge_card
from lerobot_topreward.changes import CARD, Changes, find_changes
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub import translate_errors
from lerobot_topreward.hub_refs import (
    DEFAULT_BRANCH,
    ensure_branch,
    ensure_version_tag,
    own_pull_request,
    prepare_repo,
)
from lerobot_topreward.push_options import check_branch

_TITLE = "Add TOPReward labels"
_CURATED_TITLE = "Leave out episodes by their TOPReward labels"


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push left on the Hub."""

    url: str  # of the branch or pull request, for people
    commit: str  # the commit that now holds the labels
    branch: str  # what to give LeRobot as revision; refs/pr/N for a pull request
    uploaded: int  # files added or changed
    deleted: int  # files
    unchanged: bool  # the Hub held all of it already, and no commit was made


@dataclass(frozen=True, slots=True)
class _Head:
    commit: str
    files: Mapping[str, RepoFile]  # by path
    card: str | None
    info: Mapping[str, Any]  # meta/info.json, empty where there is none


@dataclass(frozen=True, slots=True)
class _Target:
    repo_id: str
    branch: str  # the card names it; commits go to revision
    revision: str  # a branch, or refs/pr/N of a pull request that is already open
    open_pr: bool  # whether the commit opens a new pull request
    is_source: bool
    option: str


def push(
    folder: Path,
    *,
    repo_id: str,
    facts: CardFacts,
    branch: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    api: HfApi | None = None,
    option: str = "--hub-repo-id",
) -> PushResult:
    """Bring a labelled dataset to the Hub.

    Only files that differ from the branch are sent: to the dataset that was labelled its videos do
    not travel again, while a new repository receives all that LeRobot needs. Data and episode files
    that the dataset no longer has are deleted in the same commit. Tags are never moved; a
    repository without any version tag, which LeRobot would refuse to read, is given one unless it
    is the source.

    Args:
        folder: The dataset with its reward columns and sidecar, complete.
        repo_id: Where to; created if it does not exist.
        facts: What the card says; ``facts.source_repo_id`` is the dataset that was labelled.
        branch: Where to in the repository. By default ``topreward`` in the source itself, so that
            its readers notice nothing, and ``main`` elsewhere. A new branch of the source begins at
            the commit that was labelled.
        private: Create the repository as a private one.
        create_pr: Open a pull request against ``main``, or renew the one opened before.
        api: The Hub's client.
        option: The command-line option that named the repository, for messages.

    Raises:
        UserError: The Hub refuses or cannot be reached, the options contradict each other, files
            are missing, or the push would replace another dataset.
    """
    api = api or HfApi()
    is_source = repo_id == facts.source_repo_id
    check_branch(branch, create_pr=create_pr)
    if not (api.token or get_token()):
        raise UserError(
            f"{option} {repo_id!r}: pushing needs a token that may write, and none was found. "
            "Log in: hf auth login"
        )
    info = load_info(folder)
    title = _title(facts)
    with translate_errors(repo_id=repo_id, option=option):
        may_create = not (is_source or create_pr)
        prepare_repo(api, repo_id, private=private, may_create=may_create, option=option)
        branch = branch or (DEFAULT_BRANCH if is_source and not create_pr else "main")
        ensure_branch(api, repo_id, branch, start=facts.source_revision if is_source else None)
        revision = (own_pull_request(api, repo_id, title=title) if create_pr else None) or branch
        target = _Target(
            repo_id=repo_id,
            branch=branch,
            revision=revision,
            open_pr=create_pr and revision == branch,
            is_source=is_source,
            option=option,
        )
        result = _commit_fresh(api, folder, target, facts=facts, info=info)
        if not is_source and not create_pr:
            ensure_version_tag(api, repo_id, commit=result.commit)
    return result


def _title(facts: CardFacts) -> str:
    return _TITLE if facts.curation is None else _CURATED_TITLE


def _description(facts: CardFacts) -> str:
    made = f"labelled by {facts.vlm} with lerobot-topreward {facts.version}"
    if (curation := facts.curation) is None:
        return f"{facts.labelled} of {facts.total} episodes of {facts.source} {made}"
    return f"{facts.total} of {curation.episodes} episodes of {facts.source}, {made}"


def _commit_fresh(
    api: HfApi,
    folder: Path,
    target: _Target,
    *,
    facts: CardFacts,
    info: DatasetInfo,
    again: bool = False,
) -> PushResult:
    try:
        return _commit(api, folder, target, facts=facts, info=info)
    except HfHubHTTPError as error:
        if error.response.status_code != 412:
            raise
        if again:
            raise UserError(
                f"{target.option} {target.repo_id!r}: someone else keeps committing to "
                f"{target.revision!r}. Run again when they are done; nothing is sent twice"
            ) from error
    # Somebody committed meanwhile: compare with what the branch holds now.
    return _commit_fresh(api, folder, target, facts=facts, info=info, again=True)


def _commit(
    api: HfApi, folder: Path, target: _Target, *, facts: CardFacts, info: DatasetInfo
) -> PushResult:
    head = _read_head(api, target)
    _check_replaceable(head, info=info, target=target)
    before = head.card
    if before is None and (folder / CARD).is_file():
        before = (folder / CARD).read_bytes().decode()
    section = card_section(facts, repo_id=target.repo_id, branch=target.branch)
    card = merge_card(before, section, info=info, repo_id=target.repo_id)
    start = facts.source_revision or head.commit
    origin: Mapping[str, RepoFile] = {}
    if target.is_source:
        origin = head.files if start == head.commit else _list_files(api, target.repo_id, start)
    changes = find_changes(folder, info=info, card=card, remote=head.files, origin=origin)
    commit, revision = head.commit, target.revision
    if changes:
        made = _send(api, changes, target, parent=head.commit, start=start, facts=facts)
        commit, revision = made.oid, made.pr_revision or revision
    is_pr = revision.startswith("refs/pr/")
    page = revision.replace("refs/pr/", "discussions/") if is_pr else f"tree/{revision}"
    return PushResult(
        url=f"{api.endpoint}/datasets/{target.repo_id}/{page}",
        commit=commit,
        branch=revision,
        uploaded=len(changes.added),
        deleted=len(changes.deleted),
        unchanged=not changes,
    )


def _read_head(api: HfApi, target: _Target) -> _Head:
    commit = api.dataset_info(target.repo_id, revision=target.revision).sha
    assert commit is not None  # the Hub states it whenever a revision is asked for
    files = _list_files(api, target.repo_id, commit)

    def read(path: str) -> str | None:
        if path not in files:
            return None
        cached = api.hf_hub_download(target.repo_id, path, repo_type="dataset", revision=commit)
        return Path(cached).read_bytes().decode()  # as text, line ends would change

    return _Head(
        commit=commit, files=files, card=read(CARD), info=json.loads(read(INFO_PATH) or "{}")
    )


def _list_files(api: HfApi, repo_id: str, revision: str) -> dict[str, RepoFile]:
    entries = api.list_repo_tree(repo_id, repo_type="dataset", revision=revision, recursive=True)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _check_replaceable(head: _Head, *, info: DatasetInfo, target: _Target) -> None:
    held = (head.info.get("total_episodes", 0), head.info.get("total_frames", 0))
    if held in ((0, 0), (info.total_episodes, info.total_frames)):
        return
    # A branch of the source is a place for labels, and a repository with our card was made by an
    # earlier push; anywhere else a dataset would be lost by mistake.
    if target.is_source:
        replaceable = target.branch != "main"
    else:
        replaceable = head.card is not None and START in head.card
    if not replaceable:
        raise UserError(
            f"{target.option} {target.repo_id!r} must not hold another dataset on "
            f"{target.revision!r}; it has {held[0]} episodes of {held[1]} frames in all, yours "
            f"{info.total_episodes} of {info.total_frames}.\nName another repository, or a "
            "--branch of its own"
        )


def _send(
    api: HfApi, changes: Changes, target: _Target, *, parent: str, start: str, facts: CardFacts
) -> CommitInfo:
    operations = [
        *(
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
            for path, content in changes.added.items()
        ),
        *(
            CommitOperationCopy(src_path_in_repo=path, path_in_repo=path, src_revision=start)
            for path in changes.copied
        ),
        *(CommitOperationDelete(path_in_repo=path) for path in changes.deleted),
    ]
    try:
        return api.create_commit(
            target.repo_id,
            operations,
            commit_message=_title(facts),
            commit_description=_description(facts),
            repo_type="dataset",
            revision=target.revision,
            parent_commit=parent,
            create_pr=target.open_pr,
        )
    except ValueError as error:
        if "Invalid metadata in README.md" not in str(error):
            raise
        raise UserError(
            f"{target.option} {target.repo_id!r}: the Hub refuses the front matter of its "
            f"{CARD}. Mend it there and run again; {str(error).splitlines()[-1]}"
        ) from error

"""Labeled datasets to the Hub: only what changed, in one commit, on a branch of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetInfo,
    HfApi,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.data.info import CODEBASE_VERSION
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.publish.card import CardFacts, card_section, merge_card
from lerobot_topreward.publish.changes import CARD, find_changes, list_files
from lerobot_topreward.publish.lineage import Lineage, find_difference, lineage_of
from lerobot_topreward.publish.options import check_branch, is_version

_BRANCH = "topreward"  # of the source
LABEL_TITLE = "Add TOPReward labels"
CURATED_TITLE = "Leave out episodes by their TOPReward labels"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a dataset goes on the Hub, as the user named it.

    By default that is the branch ``topreward`` in the source itself, so that its readers notice
    nothing, and ``main`` elsewhere. A new branch of the source begins at the commit that was
    labeled.
    """

    repo_id: str  # created if it does not exist
    source_repo_id: str  # the dataset that was labeled
    source_revision: str | None  # its commit on the Hub; None when it was a local folder
    branch: str | None = None
    private: bool = False  # if the repository has to be created
    create_pr: bool = False  # open a pull request against main, or renew the one opened before
    title: str = LABEL_TITLE  # of the commit and the pull request
    option: str = "hub_repo_id"  # that named the repository, for messages

    @property
    def shown(self) -> str:
        """The repository and its option, for messages."""
        return f"`{self.option}` {self.repo_id!r}"

    @property
    def source(self) -> str:
        """Name the dataset that was labeled, with its commit where it has one."""
        commit = "" if self.source_revision is None else f"@{self.source_revision[:12]}"
        return f"{self.source_repo_id}{commit}"


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
class _Target:
    """A destination as the Hub knows it at the moment."""

    branch: str  # the card names it; commits go to revision
    revision: str  # a branch, or refs/pr/N of a pull request that is already open
    is_source: bool
    has_repo: bool  # or it has to be created
    has_branch: bool  # or it has to be created


def check_push(to: Destination, *, ours: Lineage | None, api: HfApi | None = None) -> None:
    """Find out, before hours of work, what a push would be refused for; changes nothing.

    `ours` is what would be pushed, as far as it is known; None leaves out whether it would replace
    another dataset.

    Raises:
        UserError: As `push`.
    """
    api = api or HfApi()
    with translate_errors(repo_id=to.repo_id, option=to.option):
        target = _find_target(api, to)
        if target.has_branch and ours is not None:
            _check_replaceable(api, to, target, _find_head(api, to, target), ours=ours)


def push(
    folder: Path, to: Destination, *, facts: CardFacts, api: HfApi | None = None
) -> PushResult:
    """Bring a labeled dataset to the Hub.

    Only files that differ from the branch are sent: to the dataset that was labeled its videos do
    not travel again, while a new repository receives all that LeRobot needs. Data and episode files
    that the dataset no longer has are deleted in the same commit. Tags are never moved; a
    repository without any version tag, which LeRobot would refuse to read, is given one unless it
    is the source.

    Raises:
        UserError: The Hub refuses or cannot be reached, the options contradict each other, files
            are missing, or the push would replace another dataset.
    """
    api = api or HfApi()
    with translate_errors(repo_id=to.repo_id, option=to.option):
        target = _find_target(api, to)
        if not target.has_repo:
            api.create_repo(to.repo_id, repo_type="dataset", private=to.private, exist_ok=True)
        if not target.has_branch:
            api.create_branch(
                to.repo_id,
                branch=target.branch,
                revision=to.source_revision if target.is_source else None,
                repo_type="dataset",
                exist_ok=True,
            )
        result = None
        for is_new in (not target.has_branch, False):
            try:
                result = _commit(api, folder, to, target, facts=facts, is_new=is_new)
                break
            except HfHubHTTPError as error:
                if error.response.status_code != 412:
                    raise
                # Somebody committed meanwhile: compare with what the branch holds now.
        if result is None:
            raise UserError(
                f"{to.shown}: someone else keeps committing to "
                f"{target.revision!r}. Run again when they are done; nothing is sent twice"
            )
        if not target.is_source and not to.create_pr:
            refs = api.list_repo_refs(to.repo_id, repo_type="dataset")
            if not any(is_version(ref.name) for ref in (*refs.branches, *refs.tags)):
                api.create_tag(
                    to.repo_id,
                    tag=CODEBASE_VERSION,
                    revision=result.commit,
                    repo_type="dataset",
                    exist_ok=True,
                )
    return result


def _find_target(api: HfApi, to: Destination) -> _Target:
    check_branch(to.branch, create_pr=to.create_pr)
    is_source = to.repo_id == to.source_repo_id
    repo = _check_access(api, to, may_create=not (is_source or to.create_pr))
    # Names differ in case, and change: the Hub knows which repository is meant.
    is_source = is_source or (repo is not None and repo.id == to.source_repo_id)
    branch = to.branch or (_BRANCH if is_source and not to.create_pr else "main")
    own = None
    if to.create_pr:
        opened = api.get_repo_discussions(
            to.repo_id,
            repo_type="dataset",
            author=api.whoami(cache=True)["name"],
            discussion_type="pull_request",
            discussion_status="open",
        )
        own = next((f"refs/pr/{made.num}" for made in opened if made.title == to.title), None)
    branches = [] if repo is None else api.list_repo_refs(to.repo_id, repo_type="dataset").branches
    return _Target(
        branch=branch,
        revision=own or branch,
        is_source=is_source,
        has_repo=repo is not None,
        has_branch=any(ref.name == branch for ref in branches),
    )


def _check_access(api: HfApi, to: Destination, *, may_create: bool) -> DatasetInfo | None:
    """See that the token may push, as far as the Hub tells; None if the repository is missing."""
    if to.repo_id.count("/") != 1 or not all(to.repo_id.split("/")):
        raise UserError(f"`{to.option}` must look like owner/name; got {to.repo_id!r}")
    if not (api.token or get_token()):
        raise UserError(
            f"{to.shown}: pushing needs a token that may write, and none was found. "
            "Log in: hf auth login"
        )
    user = api.whoami(cache=True)
    if not isinstance(_find(user, "name"), str):
        raise UserError(f"{to.shown}: the Hub does not say whose your token is")
    advice = "Take a token with write access to its owner, or name a repository of your own"
    if _find(user, "auth", "accessToken", "role") == "read":
        raise UserError(f"{to.shown}: your token may only read. {advice}")
    try:
        repo = api.dataset_info(to.repo_id)
    except RepositoryNotFoundError as error:
        if not may_create:
            raise UserError(
                f"`{to.option}` must name a dataset that is on the Hub already, to add a branch or "
                f"pull request to it; got {to.repo_id!r}, which is not, or is hidden from your token.\n"
                "Check the name and the token (hf auth login), or name a new repository with "
                "`hub_repo_id` and without `create_pr`"
            ) from error
        owner = to.repo_id.split("/")[0]
        if not _may_create(user, owner):
            raise UserError(
                f"{to.shown} is not on the Hub, and your token may not create it for "
                f"{owner!r}. {advice}"
            ) from error
        return None
    if to.private and not repo.private:
        raise UserError(
            f"`private` makes a new repository private; {to.repo_id!r} exists and is public. "
            "Drop the option, change the repository's settings, or name another repository"
        )
    if not to.create_pr:
        try:
            api.auth_check(to.repo_id, repo_type="dataset", write=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:  # a Hub without this request
                raise
    return repo


def _find(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _may_create(user: Any, owner: str) -> bool:
    """Whether `whoami` leaves it possible that its token creates repositories of an owner."""
    # The owner is the user, or an organization in which the user does more than read. A token with
    # scopes also has to list the owner with the right to write; others may do what their user may.
    listed = _find(user, "orgs")
    orgs = listed if isinstance(listed, list) else []
    writable = {_find(org, "name") for org in orgs if _find(org, "roleInOrg") != "read"}
    if owner not in writable | {_find(user, "name")}:
        return False
    scopes = _find(user, "auth", "accessToken", "fineGrained", "scoped")
    if not isinstance(scopes, list):
        return True
    return any(
        _find(scope, "entity", "name") == owner
        and "repo.write" in (_find(scope, "permissions") or ())
        for scope in scopes
    )


def _find_head(api: HfApi, to: Destination, target: _Target) -> str:
    commit = api.dataset_info(to.repo_id, revision=target.revision).sha
    if commit is None:
        raise UserError(f"{to.shown}: the Hub does not name its commit")
    return commit


def _check_replaceable(
    api: HfApi, to: Destination, target: _Target, head: str, *, ours: Lineage | Path
) -> None:
    if target.is_source and head == to.source_revision and to.title == LABEL_TITLE:
        return
    if isinstance(ours, Path):
        ours = lineage_of(open_source(repo_id=None, root=ours, revision=None))
    for_labels = target.is_source and target.branch != "main"
    why = find_difference(api, to.repo_id, commit=head, ours=ours, for_labels=for_labels)
    if why is not None:
        raise UserError(
            f"{to.shown} must not hold another dataset on {target.revision!r}; "
            f"{why}.\nName another repository, or a `branch` of its own"
        )


def _commit(
    api: HfApi, folder: Path, to: Destination, target: _Target, *, facts: CardFacts, is_new: bool
) -> PushResult:
    from lerobot.datasets.io_utils import load_info  # takes seconds

    head = _find_head(api, to, target)
    if not is_new:  # there is nothing to lose on a branch that was made for this
        _check_replaceable(api, to, target, head, ours=folder)
    # What the branch holds, and in the source's own repository what the labeled commit holds:
    # videos that were never fetched are copied from there.
    remote = list_files(api, to.repo_id, head)
    start = to.source_revision or head
    origin = {}
    if target.is_source:
        origin = remote if start == head else list_files(api, to.repo_id, start)

    # The section about labels is put into the branch's card, else into the folder's.
    card = folder / CARD
    if CARD in remote:
        card = Path(api.hf_hub_download(to.repo_id, CARD, repo_type="dataset", revision=head))
    try:
        before = card.read_bytes().decode() if card.is_file() else None  # keeps its line ends
    except UnicodeDecodeError as error:
        raise UserError(f"{card} must be text in UTF-8; save it so and run again") from error
    info = load_info(folder)
    section = card_section(facts, source=to.source, repo_id=to.repo_id, branch=target.branch)
    text = merge_card(before, section, info=info, repo_id=to.repo_id)

    changes = find_changes(folder, info=info, card=text, remote=remote, origin=origin, start=start)
    # One commit on top of the one that was compared with: the Hub answers 412 where somebody was
    # quicker. A pull request is opened by the first commit; later ones go to its branch.
    commit, revision = head, target.revision
    if changes:
        try:
            made = api.create_commit(
                to.repo_id,
                changes,
                commit_message=to.title,
                commit_description=facts.summarize(to.source),
                repo_type="dataset",
                revision=target.revision,
                parent_commit=head,
                create_pr=to.create_pr and target.revision == target.branch,
            )
        except ValueError as error:
            if "Invalid metadata in README.md" not in str(error):
                raise
            raise UserError(
                f"{to.shown}: the Hub refuses the front matter of its {CARD}. Fix "
                f"it there and run again; {str(error).splitlines()[-1]}"
            ) from error
        commit, revision = made.oid, made.pr_revision or revision
    is_pr = revision.startswith("refs/pr/")
    page = revision.replace("refs/pr/", "discussions/") if is_pr else f"tree/{revision}"
    return PushResult(
        url=f"{api.endpoint}/datasets/{to.repo_id}/{page}",
        commit=commit,
        branch=revision,
        uploaded=sum(isinstance(change, CommitOperationAdd) for change in changes),
        deleted=sum(isinstance(change, CommitOperationDelete) for change in changes),
        unchanged=not changes,
    )

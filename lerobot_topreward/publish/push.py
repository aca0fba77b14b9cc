"""Labeled datasets to the Hub: only what changed, in one commit, on a branch of its own."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from lerobot.datasets.io_utils import load_info

from lerobot_topreward.data.dataset import open_source
from lerobot_topreward.errors import UserError
from lerobot_topreward.hub_errors import translate_errors
from lerobot_topreward.publish.card import CardFacts, card_section, merge_card
from lerobot_topreward.publish.changes import CARD, find_changes, list_files
from lerobot_topreward.publish.lineage import Lineage, find_difference, lineage_of
from lerobot_topreward.publish.options import check_branch
from lerobot_topreward.publish.refs import (
    DEFAULT_BRANCH,
    check_access,
    ensure_version_tag,
    find_own_pull_request,
)

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


def check_push(to: Destination, *, ours: Lineage, api: HfApi | None = None) -> None:
    """Find out, before hours of work, what a push would be refused for; changes nothing.

    `ours` is what would be pushed, as far as it is known.

    Raises:
        UserError: As `push`.
    """
    api = api or HfApi()
    with translate_errors(repo_id=to.repo_id, option=to.option):
        target = _find_target(api, to)
        if target.has_branch:
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
                f"`{to.option}` {to.repo_id!r}: someone else keeps committing to "
                f"{target.revision!r}. Run again when they are done; nothing is sent twice"
            )
        if not target.is_source and not to.create_pr:
            ensure_version_tag(api, to.repo_id, commit=result.commit)
    return result


def _find_target(api: HfApi, to: Destination) -> _Target:
    check_branch(to.branch, create_pr=to.create_pr)
    is_source = to.repo_id == to.source_repo_id
    repo = check_access(
        api,
        to.repo_id,
        private=to.private,
        may_create=not (is_source or to.create_pr),
        create_pr=to.create_pr,
        option=to.option,
    )
    # Names differ in case, and change: the Hub knows which repository is meant.
    is_source = is_source or (repo is not None and repo.id == to.source_repo_id)
    branch = to.branch or (DEFAULT_BRANCH if is_source and not to.create_pr else "main")
    own = find_own_pull_request(api, to.repo_id, title=to.title) if to.create_pr else None
    branches = [] if repo is None else api.list_repo_refs(to.repo_id, repo_type="dataset").branches
    return _Target(
        branch=branch,
        revision=own or branch,
        is_source=is_source,
        has_repo=repo is not None,
        has_branch=any(ref.name == branch for ref in branches),
    )


def _find_head(api: HfApi, to: Destination, target: _Target) -> str:
    commit = api.dataset_info(to.repo_id, revision=target.revision).sha
    if commit is None:
        raise UserError(f"`{to.option}` {to.repo_id!r}: the Hub does not name its commit")
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
            f"`{to.option}` {to.repo_id!r} must not hold another dataset on {target.revision!r}; "
            f"{why}.\nName another repository, or a `branch` of its own"
        )


def _commit(
    api: HfApi, folder: Path, to: Destination, target: _Target, *, facts: CardFacts, is_new: bool
) -> PushResult:
    head = _find_head(api, to, target)
    if not is_new:  # there is nothing to lose on a branch that was made for this
        _check_replaceable(api, to, target, head, ours=folder)
    remote = list_files(api, to.repo_id, head)
    start = to.source_revision or head
    origin = {}
    if target.is_source:
        origin = remote if start == head else list_files(api, to.repo_id, start)

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
                f"`{to.option}` {to.repo_id!r}: the Hub refuses the front matter of its {CARD}. Fix "
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

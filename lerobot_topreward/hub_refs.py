"""Repositories, branches, tags and pull requests of datasets on the Hub."""

import packaging.version
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from lerobot.datasets.dataset_metadata import CODEBASE_VERSION

from lerobot_topreward.errors import UserError

DEFAULT_BRANCH = "topreward"


def prepare_repo(api: HfApi, repo_id: str, *, private: bool, may_create: bool, option: str) -> None:
    """See that a dataset repository is there, or create it.

    Raises:
        UserError: It is missing and may not be created, or public and should be private.
    """
    try:
        repo = api.dataset_info(repo_id)
    except RepositoryNotFoundError as error:
        if not may_create:
            raise UserError(
                f"{option} must name a dataset that is on the Hub already, to add a branch or pull "
                f"request to it; got {repo_id!r}, which is not, or is hidden from your token.\n"
                "Check the name and the token (hf auth login), or name a new repository with "
                "--hub-repo-id and without --create-pr"
            ) from error
        api.create_repo(repo_id, repo_type="dataset", private=private)
        return
    if private and not repo.private:
        raise UserError(
            f"--private makes a new repository private; {repo_id!r} exists and is public. "
            "Drop the option, change the repository's settings, or name another repository"
        )


def ensure_branch(api: HfApi, repo_id: str, branch: str, *, start: str | None) -> None:
    """Create a branch from a commit, or from main, unless it is there."""
    refs = api.list_repo_refs(repo_id, repo_type="dataset")
    if branch not in {ref.name for ref in refs.branches}:
        api.create_branch(
            repo_id, branch=branch, revision=start, repo_type="dataset", exist_ok=True
        )


def own_pull_request(api: HfApi, repo_id: str, *, title: str) -> str | None:
    """Find the open pull request of that title by the token's owner, as ``refs/pr/N``."""
    opened = api.get_repo_discussions(
        repo_id,
        repo_type="dataset",
        author=api.whoami()["name"],
        discussion_type="pull_request",
        discussion_status="open",
    )
    return next((f"refs/pr/{request.num}" for request in opened if request.title == title), None)


def ensure_version_tag(api: HfApi, repo_id: str, *, commit: str) -> None:
    """Tag a commit with LeRobot's format, unless the repository has any version already."""
    refs = api.list_repo_refs(repo_id, repo_type="dataset")
    for ref in [*refs.branches, *refs.tags]:
        try:
            packaging.version.parse(ref.name)
        except packaging.version.InvalidVersion:
            continue
        return
    api.create_tag(repo_id, tag=CODEBASE_VERSION, revision=commit, repo_type="dataset")

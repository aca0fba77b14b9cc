"""Repositories, branches, tags and pull requests of datasets on the Hub."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from lerobot.datasets.dataset_metadata import CODEBASE_VERSION

from lerobot_topreward.errors import UserError
from lerobot_topreward.publish.options import is_version

DEFAULT_BRANCH = "topreward"


def check_access(
    api: HfApi, repo_id: str, *, private: bool, may_create: bool, create_pr: bool, option: str
) -> DatasetInfo | None:
    """See that the token may push to a dataset repository, as far as the Hub tells.

    Returns:
        The repository; None where it has to be created.

    Raises:
        UserError: No token, or one that may not do it; the repository is missing and may not be
            created, or public and should be private.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise UserError(f"`{option}` must look like owner/name; got {repo_id!r}")
    if not (api.token or get_token()):
        raise UserError(
            f"`{option}` {repo_id!r}: pushing needs a token that may write, and none was found. "
            "Log in: hf auth login"
        )
    user = api.whoami(cache=True)
    if not isinstance(_find(user, "name"), str):
        raise UserError(f"`{option}` {repo_id!r}: the Hub does not say whose your token is")
    advice = "Take a token with write access to its owner, or name a repository of your own"
    if _find(user, "auth", "accessToken", "role") == "read":
        raise UserError(f"`{option}` {repo_id!r}: your token may only read. {advice}")
    try:
        repo = api.dataset_info(repo_id)
    except RepositoryNotFoundError as error:
        if not may_create:
            raise UserError(
                f"`{option}` must name a dataset that is on the Hub already, to add a branch or pull "
                f"request to it; got {repo_id!r}, which is not, or is hidden from your token.\n"
                "Check the name and the token (hf auth login), or name a new repository with "
                "`hub_repo_id` and without `create_pr`"
            ) from error
        owner = repo_id.split("/")[0]
        if not _may_create(user, owner):
            raise UserError(
                f"`{option}` {repo_id!r} is not on the Hub, and your token may not create it for "
                f"{owner!r}. {advice}"
            ) from error
        return None
    if private and not repo.private:
        raise UserError(
            f"`private` makes a new repository private; {repo_id!r} exists and is public. "
            "Drop the option, change the repository's settings, or name another repository"
        )
    if not create_pr:
        try:
            api.auth_check(repo_id, repo_type="dataset", write=True)
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


def find_own_pull_request(api: HfApi, repo_id: str, *, title: str) -> str | None:
    """Find the open pull request of that title by the token's owner, as ``refs/pr/N``."""
    opened = api.get_repo_discussions(
        repo_id,
        repo_type="dataset",
        author=api.whoami(cache=True)["name"],
        discussion_type="pull_request",
        discussion_status="open",
    )
    return next((f"refs/pr/{request.num}" for request in opened if request.title == title), None)


def ensure_version_tag(api: HfApi, repo_id: str, *, commit: str) -> None:
    """Tag a commit with LeRobot's format, unless the repository has any version already."""
    refs = api.list_repo_refs(repo_id, repo_type="dataset")
    if not any(is_version(ref.name) for ref in [*refs.branches, *refs.tags]):
        api.create_tag(
            repo_id, tag=CODEBASE_VERSION, revision=commit, repo_type="dataset", exist_ok=True
        )

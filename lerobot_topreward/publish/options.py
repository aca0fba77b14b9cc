"""What can be known to be wrong with a push before anything is opened."""

import re

import packaging.version

from lerobot_topreward.errors import UserError

# git check-ref-format: what no branch may contain, begin or end with.
_NOT_A_BRANCH = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|^@$|^-|^refs/|(^|/)\.|^/|[/.]$|\.lock(/|$)"
)


def check_push_options(
    *,
    push_to_hub: bool,
    repo_id: str | None,
    hub_repo_id: str | None,
    branch: str | None,
    private: bool,
    create_pr: bool,
) -> None:
    """Refuse options of a push that name no place on the Hub, or contradict each other.

    Raises:
        UserError: names the option.
    """
    if not push_to_hub:
        given = {"hub-repo-id": hub_repo_id, "branch": branch, "private": private}
        for option, value in {**given, "create-pr": create_pr}.items():
            if value:
                raise UserError(f"--{option} is for --push-to-hub; add that, or leave it out")
        return
    if repo_id is None and hub_repo_id is None:
        raise UserError("--push-to-hub needs --hub-repo-id OWNER/NAME for a local --root")
    if hub_repo_id is not None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(hub_repo_id)
            is_valid = "/" in hub_repo_id
        except HFValidationError:
            is_valid = False
        if not is_valid:
            raise UserError(
                "--hub-repo-id must look like OWNER/NAME (letters, digits, '-', '_', '.'); got "
                f"{hub_repo_id!r}"
            )
    if private and create_pr:
        raise UserError(
            "--private is for a repository that is made, --create-pr for one that exists; "
            "leave out one of them"
        )
    check_branch(branch, create_pr=create_pr)


def check_branch(branch: str | None, *, create_pr: bool) -> None:
    """Refuse a branch that a pull request cannot have, or that git or LeRobot would misread.

    Raises:
        UserError: It is one of these.
    """
    if branch is None:
        return
    if create_pr and branch != "main":
        raise UserError(
            f"--create-pr opens a pull request against main; got --branch {branch}. Drop one of them"
        )
    if not branch or _NOT_A_BRANCH.search(branch):
        raise UserError(
            f"--branch must be a name that git takes for a branch, such as 'topreward'; "
            f"got {branch!r}"
        )
    try:
        packaging.version.parse(branch)
    except packaging.version.InvalidVersion:
        return
    # https://github.com/huggingface/lerobot/blob/main/src/lerobot/datasets/utils.py get_safe_version
    raise UserError(
        f"--branch must not look like a version; got {branch!r}, which LeRobot would take for the "
        "dataset's format and read by default. Choose a name such as 'topreward'"
    )

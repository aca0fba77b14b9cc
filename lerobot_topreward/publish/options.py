"""The options of a push, and what can be known to be wrong with them before anything is opened."""

import re
from dataclasses import dataclass

import packaging.version

from lerobot_topreward.errors import UserError

# git check-ref-format: what no branch may contain, begin or end with.
_NOT_A_BRANCH = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|^@$|^-|^refs/|(^|/)\.|^/|[/.]$|\.lock(/|$)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PushConfig:
    """Whether the dataset that is written is uploaded, and where to."""

    push_to_hub: bool = False  # upload it, with its labels and a card
    hub_repo_id: str | None = None  # where to; --repo-id itself, on --branch, if not given
    branch: str | None = None  # in the source `topreward` or `curated` by default; elsewhere main
    private: bool = False  # if the repository has to be made
    create_pr: bool = False  # open a pull request instead

    def check(self, *, repo_id: str | None) -> None:
        """Refuse options that name no place on the Hub, or contradict each other.

        Raises:
            UserError: names the option.
        """
        if not self.push_to_hub:
            for name in ("hub_repo_id", "branch", "private", "create_pr"):
                if getattr(self, name):
                    raise UserError(f"`{name}` is for `push_to_hub`; add that, or leave it out")
            return
        if repo_id is None and self.hub_repo_id is None:
            raise UserError("`push_to_hub` needs `hub_repo_id=OWNER/NAME` for a local `root`")
        if self.hub_repo_id is not None:
            from huggingface_hub.errors import HFValidationError
            from huggingface_hub.utils import validate_repo_id

            try:
                validate_repo_id(self.hub_repo_id)
                if "/" not in self.hub_repo_id:
                    raise HFValidationError
            except HFValidationError:
                raise UserError(
                    "`hub_repo_id` must look like OWNER/NAME (letters, digits, '-', '_', '.'); got "
                    f"{self.hub_repo_id!r}"
                ) from None
        if self.private and self.create_pr:
            raise UserError(
                "`private` is for a repository that is made, `create_pr` for one that exists; "
                "leave out one of them"
            )
        check_branch(self.branch, create_pr=self.create_pr)


def check_branch(branch: str | None, *, create_pr: bool) -> None:
    """Refuse a branch that a pull request cannot have, or that git or LeRobot would misread.

    Raises:
        UserError: It is one of these.
    """
    if branch is None:
        return
    if create_pr and branch != "main":
        raise UserError(
            f"`create_pr` opens a pull request against main; got `branch={branch}`. Drop one of "
            "them"
        )
    if not branch or _NOT_A_BRANCH.search(branch):
        raise UserError(
            f"`branch` must be a name that git takes for a branch, such as 'topreward'; "
            f"got {branch!r}"
        )
    if is_version(branch):
        raise UserError(
            f"`branch` must not look like a version; got {branch!r}, which LeRobot would take for "
            "the dataset's format and read by default. Choose a name such as 'topreward'"
        )


def is_version(name: str) -> bool:
    """Whether LeRobot would take a branch or tag for the version of a dataset's format.

    https://github.com/huggingface/lerobot/blob/main/src/lerobot/datasets/utils.py get_safe_version
    """
    try:
        packaging.version.parse(name)
    except packaging.version.InvalidVersion:
        return False
    return True

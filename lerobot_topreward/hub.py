"""The Hugging Face Hub: its errors in plain words."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import httpx
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lerobot_topreward.errors import UserError

RepoType = Literal["dataset", "model"]

_CONVERT = "python -m lerobot.scripts.convert_dataset_v21_to_v30 --repo-id="


@contextmanager
def translate_errors(
    *,
    repo_id: str,
    option: str = "--repo-id",
    revision: str | None = None,
    repo_type: RepoType = "dataset",
) -> Iterator[None]:
    """Turn what the Hub's client, or LeRobot on top of it, raises into advice.

    Args:
        repo_id: The repository that is read or written inside the block.
        option: The command-line option that named it; the message begins with it.
        revision: The branch, tag or commit asked for, if any.
        repo_type: What the repository is said to be.

    Raises:
        UserError: The repository or revision is unknown, gated or not a LeRobot v3 dataset; the
            token is missing, refused or too weak; the Hub is out of reach, down or limits the rate.
            Anything else passes through unchanged.
    """
    handled = sys.exception()  # not ours, though Python chains it to whatever is raised inside
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # Libraries wrap the Hub's errors (transformers in OSError, uploads in RuntimeError) and the
        # innermost one says most: a file missing from the cache is there because of it.
        for link in reversed(_chain(error, until=handled)):
            advice = _access(link, repo_id=repo_id, revision=revision, repo_type=repo_type)
            advice = advice or _connection(link, repo_id=repo_id)
            if advice is None and repo_type == "dataset":
                advice = _format_version(link, repo_id=repo_id)
            if advice is not None:
                raise UserError(f"{option} {advice}") from error
        raise


def _chain(error: BaseException, *, until: BaseException | None) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link is not until and link not in links:
        links.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return links


def _access(
    error: BaseException, *, repo_id: str, revision: str | None, repo_type: RepoType
) -> str | None:
    where = f"{constants.ENDPOINT}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"
    match error:
        case HFValidationError():
            return (
                f"must look like owner/name (letters, digits, '-', '_', '.'); got {repo_id!r}. "
                "For a folder on this machine give its path instead."
            )
        case GatedRepoError():
            return (
                f"must name a {repo_type} that you may read; {repo_id!r} is gated. "
                f"Accept its terms at {where}, then log in: hf auth login"
            )
        case RepositoryNotFoundError():
            seen = "cannot be seen with your token" if get_token() else "is private"
            return (
                f"must name a {repo_type} on the Hub that you may read; got {repo_id!r}, which "
                f"does not exist or {seen}.\nCheck the spelling at {where}, or log in to an "
                "account that may read it: hf auth login"
            )
        case RevisionNotFoundError():
            asked = "" if revision is None else f" {revision!r}"
            return (
                f"must be read at a branch, tag or commit that exists; {repo_id!r} has no such "
                f"revision{asked}. Its branches and tags are listed at {where}/tree/main"
            )
        case DisabledRepoError():
            return f"must name a {repo_type} in service; the Hub has disabled {repo_id!r}."
        case LocalTokenNotFoundError():
            return "needs a token for the Hub and none was found. Log in: hf auth login"
        case HfHubHTTPError():
            return _status(error, repo_id=repo_id)
    return None


def _status(error: HfHubHTTPError, *, repo_id: str) -> str | None:
    status = error.response.status_code
    if status == 401:
        return (
            f"needs a valid token and the Hub refused yours for {repo_id!r} (401). It may have "
            "expired: log in again with hf auth login, or mend HF_TOKEN"
        )
    if status == 403:
        return (
            f"needs a token that may do this to {repo_id!r} and the Hub forbade it (403). Take a "
            "token with write access to its owner, or name a repository of your own"
        )
    if status == 429:
        return (
            f"reached the Hub's rate limit at {repo_id!r} (429). Wait a few minutes and run again; "
            "logging in (hf auth login) raises the limit"
        )
    if status >= 500:
        return f"needs the Hub, and it answered {status} for {repo_id!r}. Run again later"
    return None


def _connection(error: BaseException, *, repo_id: str) -> str | None:
    match error:
        case OfflineModeIsEnabled():
            return (
                f"{repo_id!r} is not (completely) on this machine and HF_HUB_OFFLINE forbids "
                "fetching it. Unset HF_HUB_OFFLINE, or give a local folder"
            )
        case httpx.TransportError():
            return (
                f"{repo_id!r} needs the Hub, and {constants.ENDPOINT} cannot be reached "
                f"({type(error).__name__}: {error}).\nCheck the network, HF_ENDPOINT and the "
                "proxy, and run again, or give a local folder"
            )
        case LocalEntryNotFoundError():
            return (
                f"{repo_id!r} is not (completely) in the cache and could not be fetched. Check "
                "the network and HF_HUB_OFFLINE"
            )
        case EntryNotFoundError():
            return f"{repo_id!r} lacks a file that is needed: {str(error).strip()}"
    return None


def _format_version(error: BaseException, *, repo_id: str) -> str | None:
    from lerobot.datasets.utils import CompatibilityError, ForwardCompatibilityError

    rule = f"must name a dataset of LeRobot's format v3; {repo_id!r} is "
    match error:
        case ForwardCompatibilityError():
            return f"{rule}newer than the installed lerobot reads. Upgrade lerobot"
        case CompatibilityError():
            return f"{rule}v2.1. Convert it: {_CONVERT}{repo_id}"
        # LeRobot raises these two bare; see BackwardCompatibilityError and get_safe_version in
        # https://github.com/huggingface/lerobot/blob/main/src/lerobot/datasets/utils.py
        case NotImplementedError() if "Contact the maintainer" in str(error):
            return f"{rule}older than v2.1. Convert it to v2.1 with lerobot 0.3, then to v3"
        case RuntimeError() if "_version_" in str(error):
            return (
                f"{repo_id!r} has no version tag, which LeRobot reads by default. "
                "Give a branch or commit: --revision main"
            )
    return None

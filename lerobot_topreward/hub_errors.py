"""The Hugging Face Hub: how long it is waited for, and its errors in plain words."""

import errno
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
from huggingface_hub import (
    constants,
    get_session,
    get_token,
    hf_raise_for_status,
    set_client_factory,
)
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
from huggingface_hub.utils import parse_ratelimit_headers

from lerobot_topreward.errors import UserError

RepoType = Literal["dataset", "model"]

_WAITS_S = (1, 2, 4, 8)  # before the tries after the first
_LONGEST_WAIT_S = 300  # the Hub's window for rate limits; after a longer wait run again instead
_BUSY = (408, 429, 500, 502, 503, 504)  # those that huggingface_hub retries, where it does
_CUT = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
_NO_FOLDER = (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
_NO_DISK = (errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_TRIED = f"{len(_WAITS_S) + 1} tries over {sum(_WAITS_S)} s or more"


class _Client(httpx.Client):
    """huggingface_hub's client with a time limit, which asks a busy Hub again.

    huggingface_hub retries about half of its requests (`http_backoff`) and passes ``timeout=None``
    with many. What is given up here is raised as an error that `http_backoff` does not retry.
    """

    def send(
        self, request: httpx.Request, *, stream: bool = False, **options: Any
    ) -> httpx.Response:
        """Send a request, again where that can help."""
        given = request.extensions.get("timeout", {})
        request.extensions["timeout"] = self.timeout.as_dict() | {
            part: seconds for part, seconds in given.items() if seconds is not None
        }
        # HEAD is how huggingface_hub finds out, quickly, whether to use its cache instead; a file
        # that is streamed has to be rewound. It sends both again itself.
        if request.method == "HEAD" or not isinstance(request.stream, httpx.ByteStream):
            return super().send(request, stream=stream, **options)
        for wait in _WAITS_S:
            try:
                response = super().send(request, stream=stream, **options)
            except _CUT:
                if not _may_repeat(request, None):
                    raise
            else:
                if not _may_repeat(request, response.status_code):
                    return response
                wait = max(wait, _requested_wait(response))
                if wait > _LONGEST_WAIT_S:
                    hf_raise_for_status(response)
                response.close()
            if wait > max(_WAITS_S):
                logging.getLogger(__name__).warning("the Hub asks to wait %d s", wait)
            time.sleep(wait)
        try:
            response = super().send(request, stream=stream, **options)
        except _CUT as error:
            raise httpx.TransportError(f"{type(error).__name__}: {error}, {_TRIED}") from None
        if _may_repeat(request, response.status_code):
            hf_raise_for_status(response)
        return response


def _may_repeat(request: httpx.Request, status: int | None) -> bool:
    """Whether a request that was answered so, or was cut off (None), can do no harm again."""
    opens_pr = "/commit/" in request.url.path and "create_pr" in request.url.params
    starts_job = request.method == "POST" and "/api/jobs/" in request.url.path
    if opens_pr or starts_job:
        return status in (429, 503)  # after any other it may have been done, and paid for, already
    return status is None or status in _BUSY


def _requested_wait(response: httpx.Response) -> int:
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1  # the Hub rounds down
    seconds = response.headers.get("Retry-After", "").strip()
    return int(seconds[:9]) if seconds.isdecimal() else 0  # Python refuses thousands of digits


def limit_waiting(*, limit_s: float = 60) -> None:
    """Have huggingface_hub, in this process, give up on a Hub that does not answer.

    Args:
        limit_s: seconds without a byte sent or received, > 0, where huggingface_hub has no limit.
    """
    hooks = get_session().event_hooks  # huggingface_hub's own: nothing is sent when offline
    set_client_factory(lambda: _Client(event_hooks=hooks, follow_redirects=True, timeout=limit_s))


limit_waiting()  # LeRobot and transformers, which call the Hub too, know of no other way


@contextmanager
def translate_errors(
    *,
    repo_id: str,
    option: str = "repo_id",
    revision: str | None = None,
    repo_type: RepoType = "dataset",
) -> Iterator[None]:
    """Turn what the Hub's client, or LeRobot on top of it, raises into advice.

    Args:
        repo_id: The repository that is read or written inside the block.
        option: The option that named it; the message begins with it.
        revision: The branch, tag or commit that was asked for, if any.
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
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link is not handled and link not in chain:
            chain.append(link)
            link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        # Libraries wrap the Hub's errors (transformers in OSError, uploads in RuntimeError) and the
        # innermost one says most: a file missing from the cache is there because of it.
        for link in reversed(chain):
            advice = _advise(link, repo_id, revision, repo_type)
            if advice is None and repo_type == "dataset":
                advice = _advise_on_format(link, repo_id) or _advise_on_answer(link, repo_id)
            if advice is not None:
                raise UserError(f"`{option}` {advice}") from error
        raise


# Tried in this order. {name} is the repository, {kind} a dataset or model, {where} its page.
_ADVICE: dict[type[BaseException], str] = {
    HFValidationError: "must look like owner/name (letters, digits, '-', '_', '.'); got {name}. "
    "For a folder on this machine give its path instead.",
    GatedRepoError: "must name a {kind} that you may read; {name} is gated. Accept its terms at "
    "{where}, then log in: hf auth login",
    RepositoryNotFoundError: "must name a {kind} on the Hub that you may read; got {name}, which "
    "does not exist or {hidden}.\nCheck the spelling at {where}, or log in to an account that may "
    "read it: hf auth login",
    RevisionNotFoundError: "must be read at a branch, tag or commit that exists; {name} has no such "
    "revision{revision}. Its branches and tags are listed at {where}/tree/main",
    DisabledRepoError: "must name a {kind} in service; the Hub has disabled {name}.",
    LocalTokenNotFoundError: "needs a token for the Hub and none was found. Log in: hf auth login",
    HfHubHTTPError: "{status}",
    OfflineModeIsEnabled: "{name} is not (completely) on this machine and HF_HUB_OFFLINE forbids "
    "fetching it. Unset HF_HUB_OFFLINE, or give a local folder",
    # Not answered, not to be decoded, redirected for ever.
    httpx.RequestError: "{name} needs the Hub, and {hub} cannot be reached ({error}).\nCheck the "
    "network, HF_ENDPOINT and the proxy, and run again, or give a local folder",
    LocalEntryNotFoundError: "{name} is not (completely) in the cache and could not be fetched. "
    "Check the network and HF_HUB_OFFLINE",
    EntryNotFoundError: "{name} lacks a file that is needed: {error}",
}
_STATUS = {
    401: "needs a valid token and the Hub refused yours for {name} (401). It may have expired: log "
    "in again with hf auth login, or fix HF_TOKEN",
    403: "needs a token that may do this to {name} and the Hub forbade it (403). Take a token with "
    "write access to its owner, or name a repository of your own",
    429: "reached the Hub's rate limit at {name} (429{tried}). Wait some minutes and run again; "
    "logging in (hf auth login) raises the limit",
    500: "needs the Hub, and it answered {status} for {name}{tried}. Run again later",
}
_REFUSAL = {
    404: "The repository, its branch or a file of it has gone: look there, then run again",
    409: "Somebody changed it at the same time: run again",
    412: "Somebody changed it at the same time: run again",
    413: "It is too much for one request: push fewer episodes, or ask Hugging Face",
    416: "The file changed while it was read: run again",
}
_RUN_AGAIN = (
    "Run again; if that does not help, look at the repository's page and status.huggingface.co"
)


def _advise(
    error: BaseException, repo_id: str, revision: str | None, repo_type: RepoType
) -> str | None:
    cause = str(error).strip()
    if isinstance(error, httpx.RequestError) and type(error) is not httpx.TransportError:
        cause = f"{type(error).__name__}: {error}"
    for kind, advice in _ADVICE.items():
        if isinstance(error, kind):
            return advice.format(
                name=repr(repo_id),
                kind=repo_type,
                hub=constants.ENDPOINT,
                where=f"{constants.ENDPOINT}/{'datasets/' * (repo_type == 'dataset')}{repo_id}",
                hidden="cannot be seen with your token" if get_token() else "is private",
                revision="" if revision is None else f" {revision!r}",
                status=_advise_on_status(error, repo_id) if kind is HfHubHTTPError else "",
                error=cause,
            )
    if isinstance(error, OSError):
        # Where the cache's folder cannot be made, as below /proc, it is reported as missing. So is
        # every file that was only looked for in the cache: those are not a problem.
        missing = error.filename if error.errno == errno.ENOENT else None
        homeless = missing is not None and Path(constants.HF_HOME).is_relative_to(missing)
        if isinstance(error, _NO_FOLDER) or error.errno in _NO_DISK or homeless:
            return (
                f"{repo_id!r} cannot be stored in the cache: {error.filename or constants.HF_HOME}: "
                f"{error.strerror}. Make room, or name another folder in HF_HOME"
            )
    return None


def _advise_on_status(error: Any, repo_id: str) -> str:
    status = error.response.status_code
    tried = f", {_TRIED}" if _may_repeat(error.response.request, status) else ""
    if (advice := _STATUS.get(min(status, 500))) is not None:
        return advice.format(name=repr(repo_id), status=status, tried=tried)
    reason = " ".join((error.server_message or error.response.reason_phrase).split())[:200]
    advice = _REFUSAL.get(status, _RUN_AGAIN)
    return f"was refused by the Hub for {repo_id!r}: {reason} ({status}). {advice}"


def _advise_on_answer(error: BaseException, repo_id: str) -> str | None:
    """Recognize what huggingface_hub raises when an answer is not what it expects."""
    kinds = ValueError | TypeError | LookupError | AttributeError | AssertionError
    frames = traceback.walk_tb(error.__traceback__)
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    if not isinstance(error, kinds) or not any(m.startswith("huggingface_hub.") for m in modules):
        return None
    what = " ".join(str(error).split())[:200]
    return (
        f"{repo_id!r} needs the Hub, and {constants.ENDPOINT} gave an answer that is not the Hub's "
        f"({type(error).__name__}: {what}).\nCheck HF_ENDPOINT and the proxy, and run again"
    )


def _advise_on_format(error: BaseException, repo_id: str) -> str | None:
    from lerobot.datasets.utils import CompatibilityError, ForwardCompatibilityError

    rule = f"must name a dataset of LeRobot's format v3; {repo_id!r} is "
    match error:
        case ForwardCompatibilityError():
            return f"{rule}newer than the installed lerobot reads. Upgrade lerobot"
        case CompatibilityError():
            convert = "python -m lerobot.scripts.convert_dataset_v21_to_v30"
            return f"{rule}v2.1. Convert it: {convert} --repo-id={repo_id}"
        # LeRobot raises these two bare; see BackwardCompatibilityError and get_safe_version in
        # https://github.com/huggingface/lerobot/blob/main/src/lerobot/datasets/utils.py
        case NotImplementedError() if "Contact the maintainer" in str(error):
            return f"{rule}older than v2.1. Convert it to v2.1 with lerobot 0.3, then to v3"
        case RuntimeError() if "_version_" in str(error):
            return (
                f"{repo_id!r} has no version tag, which LeRobot reads by default. "
                "Give a branch or commit: `revision=main`"
            )
    return None

"""What the Hub refuses, in one sentence each, and whether to ask again."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

_Result = TypeVar("_Result")
# The cause of all but the first says why: a file was neither in the cache nor to be had, or could not be uploaded.
_FROM_THE_CLIENT = (HTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError, RevisionResolutionError, RuntimeError)
_STORAGE = re.compile(r"storage|quota|limit (was )?(reached|exceeded)|exceeded .* limit", re.IGNORECASE)
_CONFLICT = 412  # somebody has committed since
_PASSING = (429, 500, 502, 503, 504)
_LONGEST_WAIT = 60.0
_MOST_CONFLICTS, _MOST_FAILURES = 20, 2


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into a built-in exception that says what happened and what to do.

    Args:
        repo_id: The repository that is asked for.
        revision: The revision that is asked for.

    Raises:
        PermissionError: If the token is wrong, missing, or not allowed to do this, or the repository is gated.
        FileNotFoundError: If there is no such repository, revision or file.
        ConnectionError: If the Hub gives no answer, is out of order, or is not asked because offline mode is on.
        OSError: If the storage is full, or for another refusal. The cause is the exception of huggingface_hub.
    """
    try:
        yield
    except _FROM_THE_CLIENT as error:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, HTTPError):
            raise
        raise _in_words(error, repo_id, revision) from error


def _in_words(error: Exception, repo_id: str, revision: str | None) -> OSError:
    hub = constants.ENDPOINT
    reasons = [error, error.__cause__]
    refusal = next((reason for reason in reasons if isinstance(reason, HfHubHTTPError)), None)
    if any(isinstance(reason, OfflineModeIsEnabled) for reason in reasons):
        cached = "" if isinstance(error, OfflineModeIsEnabled) else ", and it is not in the cache"
        return ConnectionError(f"{repo_id}: offline mode is on{cached}. Unset HF_HUB_OFFLINE to ask {hub}.")
    if refusal is None:
        return ConnectionError(f"{hub}: expected a Hub there, got no answer. {_first_line(error.__cause__ or error)}")
    status, said = refusal.response.status_code, _first_line(refusal.server_message or refusal)
    has_token = "authorization" in refusal.response.request.headers
    if isinstance(refusal, GatedRepoError):
        return PermissionError(f"{repo_id} is gated: ask for access at {hub}/{repo_id}, and give a token of that account.")
    if isinstance(refusal, RepositoryNotFoundError):
        return FileNotFoundError(f"{repo_id}: there is no such repository at {hub}, or it is private. {_token_hint(has_token)}")
    if isinstance(refusal, RevisionNotFoundError):
        return FileNotFoundError(f"revision: {repo_id} has no branch, tag or commit {revision!r}.")
    if isinstance(refusal, RemoteEntryNotFoundError):
        return FileNotFoundError(f"{repo_id}: {said}")
    if status == 401:
        return PermissionError(f"{repo_id}: the Hub wants to know who asks. {_token_hint(has_token)}")
    if status in (402, 413, 507) or (status == 403 and _STORAGE.search(said)):
        return OSError(f"{repo_id}: there is no room for this on the Hub. It says: {said}")
    if status == 403:
        return PermissionError(f"{repo_id}: the token may not do this; take one with write access there. The Hub says: {said}")
    if status == _CONFLICT:
        return OSError(f"{repo_id}: others kept committing at the same time, and this was not. Try again.")
    if status in _PASSING:
        problem = "asks for fewer requests" if status == 429 else "is out of order"
        return ConnectionError(f"{hub} {problem} (HTTP {status}). Try again later.")
    return OSError(f"{repo_id}: the Hub refused (HTTP {status}). It says: {said}")


def _token_hint(has_token: bool) -> str:
    if has_token:
        return "The token that was sent is not valid there, or may not see it: check token=, HF_TOKEN or `hf auth login`."
    return "No token was sent: give token=, set HF_TOKEN, or run `hf auth login`."


def _first_line(what: object) -> str:
    return next((line.strip() for line in str(what).splitlines() if line.strip()), type(what).__name__)


def persistently(ask: Callable[[], _Result], *, is_repeatable: bool = True) -> _Result:
    """Ask again where the failure may pass: the Hub is busy or out of order, an answer is cut, somebody else committed.

    The client of the Hub repeats uploads and downloads of files by itself, and nothing else.

    Args:
        ask: What to do; it starts afresh each time.
        is_repeatable: Whether asking twice does no harm where the first answer was lost.

    Returns:
        What `ask` returns.

    Raises:
        Exception: What `ask` raised last.
    """
    conflicts = failures = 0
    while True:
        try:
            return ask()
        except _FROM_THE_CLIENT as error:
            reason = error if isinstance(error, HTTPError) else error.__cause__
            response = getattr(reason, "response", None)
            if response is not None and response.status_code == _CONFLICT and conflicts < _MOST_CONFLICTS:
                conflicts += 1
                wait = random.uniform(0.0, 0.1 * conflicts)  # who comes in pairs should not meet again
            elif is_repeatable and failures < _MOST_FAILURES and _may_pass(reason):
                failures += 1
                wait = _retry_after(response) or 2.0 ** (failures - 1)
                if wait > _LONGEST_WAIT:
                    raise
            else:
                raise
        time.sleep(wait)


def _may_pass(reason: BaseException | None) -> bool:
    if isinstance(reason, HfHubHTTPError):
        return reason.response.status_code in _PASSING
    # Where nobody listens, or no name is found, nobody will in a second.
    return isinstance(reason, HTTPError) and type(reason).__name__ not in ("ConnectError", "ProxyError", "UnsupportedProtocol")


def _retry_after(response: object) -> float | None:
    text = getattr(response, "headers", {}).get("Retry-After", "")
    return float(text) if text.isdecimal() else None

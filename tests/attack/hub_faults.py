"""What a Hub answers when it refuses, cuts, hangs and talks nonsense, and what is said of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

# Every request of a push to a repository that is new, or that holds an earlier push (again).
PUSH = {
    "whoami": ("GET", "/whoami-v2"),
    "repository": ("GET", "/api/datasets/alice/[^/]+$"),
    "create": ("POST", "/api/repos/create"),
    "head": ("GET", "/revision/"),
    "tree": ("GET", "/tree/"),
    "card": ("POST", "/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/objects/batch"),
    "upload": ("PUT", "/lfs/"),
    "commit": ("POST", "/commit/"),
    "tag": ("POST", "/tag/"),
}
AGAIN = {
    "auth": ("GET", "/auth-check/write"),
    "refs": ("GET", "/refs$"),
    "meta": ("HEAD", "/resolve/.*/meta/"),
    "readme": ("GET", "/resolve/.*/README.md"),
}
# Every request of opening a dataset.
READ = {
    "refs": ("GET", "/refs$"),
    "head": ("GET", "/revision/"),
    "tree": ("GET", "/tree/"),
    "metadata": ("HEAD", "/resolve/.*/meta/info.json"),
    "file": ("GET", "/resolve/.*/meta/info.json"),
    "data": ("GET", "/resolve/.*/data/"),
}
STATUSES = (
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    410,
    412,
    413,
    416,
    418,
    422,
    429,
    431,
    451,
    *range(500, 506),
    507,
    508,
    511,
    599,
)
SOME = (400, 401, 403, 404, 409, 429, 500, 503)  # where others would say the same
RETRIED = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    request: tuple[str, str]  # method, pattern of the path
    fault: Mapping[str, Any] = field(default_factory=dict)
    times: int = 99
    said: tuple[str, ...] = ()  # one of them is in the message; empty where it must succeed


# A case takes a second of the processor: these, which differ most, run always.
SAID = (
    "rate limit",
    "Somebody",
    "someone else",
    "the Hub refused yours",
    "front matter",
    "not the Hub's",
)


def status_cases(requests: Mapping[str, tuple[str, str]], *, what: str = "") -> list[Case]:
    """Every status at a commit and where files are listed, and some at every other request."""
    return [
        Case(
            f"{where}{what} {status}",
            request,
            {"status": status},
            # A tag that is there already is what was wanted.
            said=() if (where, status) == ("tag", 409) else (str(status), *SAID),
        )
        for where, request in requests.items()
        for status in (STATUSES if where in ("commit", "tree") else SOME)
    ]


def passing_cases(requests: Mapping[str, tuple[str, str]], *, what: str = "") -> list[Case]:
    """A trouble that passes is not even noticed."""
    return [
        Case(f"{where}{what} {status} once", request, {"status": status}, times=1)
        for where, request in requests.items()
        for status in (RETRIED if where in ("commit", "tree") else (429, 503))
    ]


CUTS = [
    *(
        Case(f"{where} cut after {after} bytes {count}", PUSH[where], {"after": after}, times, said)
        for where, after in (
            ("whoami", 0),
            ("repository", 9),
            ("create", 0),
            ("head", 30),
            ("tree", 100),
            ("card", 1),
            ("preupload", 0),
            ("preupload", 50),
            ("batch", 20),
            ("upload", 0),
            ("upload", 500),
            ("commit", 0),
            ("commit", 20),
            ("commit", 900),
            ("tag", 0),
        )
        for count, times, said in (("once", 1, ()), ("always", 99, ("cannot be reached",)))
    ),
]
HTML = b"<html>Welcome to our hotel: accept the terms to use the network</html>"
NONSENSE = [
    *(
        Case(
            f"{where} answers {what!r}",
            PUSH[where],
            {"status": 200, "body": what},
            said=("is not the Hub's", "whose your token is", "does not name its commit"),
        )
        for where in ("whoami", "repository", "head", "tree", "preupload", "batch", "commit")
        for what in (HTML, b"", b"{}", b'{"', b"null", b"[3]", b"\xff\xfe")
        if (where, what) not in ((("tree"), b"{}"),)  # an empty listing, which is none of nonsense
    ),
    *(
        Case(
            f"{where} goes round in circles",
            PUSH[where],
            {"status": 307, "headers": {"Location": "?again"}, "body": b""},
            said=("TooManyRedirects", "Location", "Redirect", "307", "is not the Hub's"),
        )
        for where in ("whoami", "tree", "preupload", "commit")
    ),
    *(
        Case(
            f"{where} promises more than comes",
            PUSH[where],
            {"status": 200, "headers": {"Content-Length": "5000"}, "body": b"{}"},
            said=("cannot be reached",),
        )
        for where in ("whoami", "tree", "commit")
    ),
    *(
        Case(
            f"{where} never answers",
            PUSH[where],
            {"status": 200, "wait_s": 4},
            said=("cannot be reached (ReadTimeout",),
        )
        for where in ("whoami", "tree", "preupload", "upload", "commit")
    ),
]


def params(cases: list[Case]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def check_said(said: Any, case: Case) -> None:
    assert isinstance(said, str), said
    assert any(words in said for words in case.said), said
    assert said.count("\n") <= 1, said
    assert "Traceback" not in said

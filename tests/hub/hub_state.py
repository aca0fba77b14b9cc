"""What a Hub holds: repositories, commits, references, contents, tokens."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_SUFFIXES = (".parquet", ".mp4", ".safetensors", ".bin")  # as in the Hub's .gitattributes
ATTRIBUTES = b"".join(b"*%s filter=lfs\n" % suffix.encode() for suffix in LFS_SUFFIXES)


class RefusalError(Exception):
    """An error as the Hub answers it."""

    def __init__(self, status: int, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


@dataclass(frozen=True, slots=True)
class Blob:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        stored = b"pointer to " + self.sha256.encode() if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(self.data),
            "oid": self.oid,
        }
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry


Tree = Mapping[str, Blob]


@dataclass(frozen=True, slots=True)
class Commit:
    sha: str
    title: str
    files: Tree
    parent: "Commit | None"


@dataclass(slots=True)
class Pull:
    number: int
    title: str
    author: str


@dataclass(slots=True)
class Repo:
    kind: str  # "datasets" or "models"
    name: str  # owner/name
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # refs/heads/x, refs/tags/x, refs/pr/n
    pulls: list[Pull] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS contents by sha256

    def resolve(self, revision: str) -> Commit:
        for ref in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            revision = self.refs.get(ref, revision)
        if revision not in self.commits:
            raise RefusalError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        return self.commits[revision]

    def commit(self, ref: str, title: str, files: Tree, *, parent: Commit | None) -> Commit:
        # As in git, other contents have another hash: clients cache by it.
        tree = [(path, blob.oid) for path, blob in sorted(files.items())]
        seed = json.dumps([title, tree, parent.sha if parent else self.name])
        made = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, files, parent)
        self.commits[made.sha] = made
        self.refs[ref] = made.sha
        return made


@dataclass(slots=True)
class Fault:
    method: str
    pattern: str  # searched in the path
    status: int | None  # answered instead of the truth; None cuts the connection
    headers: Mapping[str, str]  # of that answer, in place of its own
    body: bytes | None  # of that answer; None for the Hub's own words
    wait_s: float  # before it is answered, with the lock free
    after: int  # bytes of the body that still pass before the cut
    skip: int  # requests that still pass unharmed
    times: int


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    status: int  # 0 where the connection was cut


class Hub:
    """The server's contents, what it was asked, and what it is told to do wrong."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens = {
            "hf_writer": ("alice", True),
            "hf_reader": ("alice", False),
            "hf_other": ("bob", True),
        }
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.meanwhile: dict[str, Callable[[], object]] = {}  # done once, before a path is answered
        self.jobs: dict[str, Any] = {}
        self.run_job: Callable[[Any], None] = lambda job: job.end()
        self.lock = threading.Lock()
        self.url = ""

    def reset(self) -> None:
        self.repos.clear()
        self.jobs.clear()
        self.run_job = lambda job: job.end()
        self.reset_faults()

    def reset_faults(self) -> None:
        """Do everything right again, and forget what was asked so far."""
        for kept in (self.requests, self.faults, self.meanwhile):
            kept.clear()

    def add(
        self,
        name: str,
        folder: Path | None = None,
        *,
        kind: str = "datasets",
        tag: str | None = None,
        private: bool = False,
        gated: bool = False,
    ) -> Repo:
        """Put a repository there without any client, with the files of a folder."""
        repo = Repo(kind, name, private=private, gated=gated)
        files = {".gitattributes": Blob(ATTRIBUTES, lfs=False)}
        for path in sorted(folder.rglob("*")) if folder else ():
            if path.is_file():
                files[path.relative_to(folder or path).as_posix()] = Blob(
                    path.read_bytes(), lfs=path.suffix in LFS_SUFFIXES
                )
        repo.stored = {blob.sha256: blob.data for blob in files.values() if blob.lfs}
        first = repo.commit("refs/heads/main", "initial commit", files, parent=None)
        if tag:
            repo.refs[f"refs/tags/{tag}"] = first.sha
        self.repos[kind, name] = repo
        return repo

    def dataset(self, name: str) -> Repo:
        return self.repos["datasets", name]

    def fail(
        self,
        method: str,
        pattern: str,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        wait_s: float = 0,
        after: int = 0,
        skip: int = 0,
        times: int = 1,
    ) -> None:
        """Answer some requests with a status, late or never, or cut them after some bytes."""
        fault = Fault(method, pattern, status, headers or {}, body, wait_s, after, skip, times)
        self.faults.append(fault)

    def asked(self, method: str, pattern: str = "") -> list[str]:
        """List the paths of the requests so far that were not cut, in order."""
        return [
            r.path
            for r in self.requests
            if r.method == method and r.status and re.search(pattern, r.path)
        ]

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.times and re.search(fault.pattern, path):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def environment(self, home: Path, *, token: str | None = "hf_writer") -> dict[str, str]:
        """Say what a process must find in its environment to talk to this server alone."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home),
            "HF_LEROBOT_HOME": str(home / "lerobot"),
        } | ({"HF_TOKEN": token} if token else {})


def apply_operations(repo: Repo, before: Tree, lines: list[dict[str, Any]]) -> Tree:
    files = dict(before)
    for line in lines:
        value, path = line["value"], line["value"]["path"]
        if line["key"] == "file":
            files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
        elif line["key"] == "lfsFile":
            if value["oid"] not in repo.stored:
                raise RefusalError(
                    400, f"LFS pointer pointed to a file that does not exist: {path}"
                )
            files[path] = Blob(repo.stored[value["oid"]], lfs=True)
        elif files.pop(path, None) is None:
            raise RefusalError(
                404, f"A file with this name doesn't exist: {path}", code="EntryNotFound"
            )
    return files

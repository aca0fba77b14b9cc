"""A Hub on 127.0.0.1 for clients in processes of their own: what the real one answers, in memory.

The paths, headers and error codes are those of huggingface_hub's client:
https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/hf_api.py
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_jobs import Jobs
from hub_pages import Answer, Pages
from hub_state import Fault, Hub, RefusalError, Repo, Request

NAME = r"(?P<name>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>datasets|models)/{NAME}"
ROUTES: list[tuple[str, re.Pattern[str], str]] = [
    (method, re.compile(pattern), action)
    for method, pattern, action in (
        ("GET", "/api/whoami-v2", "whoami"),
        ("POST", "/api/repos/create", "create_repo"),
        ("POST", "/api/validate-yaml", "validate_yaml"),
        ("GET", rf"{API}(?:/revision/(?P<rev>[^/]+))?", "info"),
        ("GET", rf"{API}/auth-check/write", "auth_check"),
        ("GET", rf"{API}/refs", "refs"),
        ("GET", rf"{API}/tree/(?P<rev>[^/]+)(?:/(?P<path>.+))?", "tree"),
        ("GET", rf"{API}/commits/(?P<rev>[^/]+)", "commits"),
        ("GET", rf"{API}/discussions", "discussions"),
        ("POST", rf"{API}/paths-info/(?P<rev>[^/]+)", "paths_info"),
        ("POST", rf"{API}/preupload/(?P<rev>[^/]+)", "preupload"),
        ("POST", rf"{API}/commit/(?P<rev>[^/]+)", "commit"),
        ("POST", rf"{API}/branch/(?P<rev>[^/]+)", "create_branch"),
        ("DELETE", rf"{API}/branch/(?P<rev>[^/]+)", "delete_branch"),
        ("POST", rf"{API}/tag/(?P<rev>[^/]+)", "create_tag"),
        ("DELETE", rf"{API}/tag/(?P<rev>[^/]+)", "delete_tag"),
        ("POST", rf"/(?:(?P<kind>datasets)/)?{NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
        ("GET", "/api/jobs/hardware", "job_hardware"),
        ("POST", "/api/jobs/(?P<owner>[^/]+)", "submit_job"),
        ("GET", "/api/jobs/(?P<owner>[^/]+)/(?P<job>[^/]+)", "inspect_job"),
        ("GET", "/api/jobs/(?P<owner>[^/]+)/(?P<job>[^/]+)/logs", "job_logs"),
        ("POST", "/api/jobs/(?P<owner>[^/]+)/(?P<job>[^/]+)/cancel", "cancel_job"),
        ("PUT", rf"/lfs/(?P<kind>datasets|models)/{NAME}/(?P<path>\w+)", "lfs_put"),
        ("GET", rf"/(?:(?P<kind>datasets)/)?{NAME}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
    )
]
WRITES = {
    "auth_check",
    "commit",
    "create_branch",
    "delete_branch",
    "create_tag",
    "delete_tag",
    "lfs_batch",
    "preupload",
}


class Handler(Pages, Jobs, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.respond("GET")

    def do_HEAD(self) -> None:
        self.respond("HEAD")

    def do_POST(self) -> None:
        self.respond("POST")

    def do_PUT(self) -> None:
        self.respond("PUT")

    def do_DELETE(self) -> None:
        self.respond("DELETE")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def respond(self, method: str) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.query = parse_qs(url.query)
        with self.hub.lock:
            fault = self.hub.fault(method, path)
        if fault and fault.wait_s:
            time.sleep(fault.wait_s)
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.status is None and method in ("PUT", "POST"):
            self.rfile.read(min(fault.after, length))
            return self.cut(method, path)
        self.body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.read_chunk, b""))
        with self.hub.lock:
            self.hub.meanwhile.pop(path, lambda: None)()
            status, headers, body = self.answer(method, url.path, fault)
            self.hub.requests.append(Request(method, path, status))
        if status == 200 and fault is None and re.fullmatch("/api/jobs/.+/logs", path):
            return self.stream_logs(self.hub.jobs[path.split("/")[-2]])
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if fault and fault.status is None:
            self.wfile.write(body[: fault.after])
            return self.cut(method, path)
        if method != "HEAD":
            self.wfile.write(body)
        return None

    def read_chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        return self.rfile.read(size + 2)[:size]

    def cut(self, method: str, path: str) -> None:
        self.hub.requests.append(Request(method, path, 0))
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, method: str, path: str, fault: Fault | None) -> Answer:
        try:
            if fault and fault.status:
                refusal = RefusalError(fault.status, "told to fail")
                refusal.headers = dict(fault.headers)
                if fault.body is None:
                    raise refusal
                return fault.status, fault.headers, fault.body
            for verb, pattern, action in ROUTES:
                if verb == method.replace("HEAD", "GET") and (found := pattern.fullmatch(path)):
                    made = getattr(self, action)(**self.arguments(found.groupdict(), action))
                    if isinstance(made, tuple):
                        return made
                    return 200, {"Content-Type": "application/json"}, json.dumps(made).encode()
            raise RefusalError(404, f"no such page: {method} {path}")
        except RefusalError as refusal:
            body = json.dumps({"error": str(refusal)}).encode()
            return refusal.status, refusal.headers | {"Content-Type": "application/json"}, body

    # Who may do what, in the words of the real Hub

    def arguments(self, groups: dict[str, str | None], action: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            key: unquote(groups[key] or "")
            for key in ("rev", "path", "owner", "job")
            if key in groups
        }
        if action == "lfs_put":  # a signed address, which asks for no token
            arguments["repo"] = self.hub.repos[groups["kind"] or "", groups["name"] or ""]
        elif "name" in groups:
            repo = self.repo(groups.get("kind") or "models", unquote(groups["name"] or ""))
            if action in ("resolve", "tree") and repo.gated:
                raise RefusalError(
                    403 if self.user() else 401, "Access is restricted", code="GatedRepo"
                )
            if action in WRITES:
                self.check_write(repo, arguments.get("rev", ""))
            arguments["repo"] = repo
        return arguments

    def repo(self, kind: str, name: str) -> Repo:
        user = self.user()
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and (user is None or user[0] != name.split("/")[0])):
            if user is None:
                raise RefusalError(401, "Invalid username or password.", code="RepoNotFound")
            raise RefusalError(404, "Repository not found", code="RepoNotFound")
        return repo

    def check_write(self, repo: Repo, revision: str) -> None:
        user = self.user()
        if user is None:
            raise RefusalError(401, "Invalid username or password.")
        name, may_write = user
        owner = name == repo.name.split("/")[0]
        author = any(
            revision == f"refs/pr/{pull.number}" and name == pull.author for pull in repo.pulls
        )
        uploads = self.path.endswith("/objects/batch")  # anyone may, for a pull request to come
        if not may_write or not (owner or author or uploads or "create_pr" in self.query):
            raise RefusalError(403, "Authorization error.")


@contextmanager
def serve(hub: Hub) -> Iterator[None]:
    """Answer for a Hub until the block is left."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join()

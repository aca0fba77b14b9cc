"""What a Hub answers on each of its pages, once it is known that the request is allowed."""

import hashlib
import json
import re
from collections.abc import Mapping
from email.message import Message
from typing import Any
from urllib.parse import parse_qs

import yaml
from hub_state import LFS_SUFFIXES, Hub, Pull, RefusalError, Repo, apply_operations

DATE = "2026-01-01T00:00:00.000Z"
Answer = tuple[int, Mapping[str, str], bytes]


class Pages:
    """Each method answers one page: with JSON, or with status, headers and content."""

    hub: Hub
    headers: Message
    body: bytes
    query: dict[str, list[str]]

    def user(self) -> tuple[str, bool] | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.tokens:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[token]

    def whoami(self) -> Any:
        user = self.user()
        if user is None:
            raise RefusalError(401, "Invalid username or password.")
        role = "write" if user[1] else "read"
        return {
            "type": "user",
            "name": user[0],
            "orgs": [],
            "auth": {"accessToken": {"role": role}},
        }

    def create_repo(self) -> Any:
        asked, user = json.loads(self.body), self.user()
        if user is None:
            raise RefusalError(401, "Invalid username or password.")
        name = f"{asked.get('organization') or user[0]}/{asked['name']}"
        kind = f"{asked.get('type', 'model')}s"
        if not user[1] or user[0] != name.split("/")[0]:
            raise RefusalError(
                403, f"You don't have the rights to create a {kind[:-1]} under this namespace"
            )
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{name}"
        if (kind, name) in self.hub.repos:
            body = json.dumps({"error": "You already created this repo", "url": url}).encode()
            return 409, {}, body
        self.hub.add(name, kind=kind, private=asked.get("visibility") == "private")
        return {"url": url, "name": name}

    def validate_yaml(self) -> Any:
        front = re.match(
            r"---\n(.*?)^---$", json.loads(self.body)["content"], re.DOTALL | re.MULTILINE
        )
        try:
            yaml.safe_load(front[1] if front else "")
        except yaml.YAMLError as error:
            body = json.dumps({"errors": [{"message": str(error).splitlines()[0]}], "warnings": []})
            return 400, {}, body.encode()
        return {"errors": [], "warnings": []}

    def info(self, repo: Repo, rev: str) -> Any:
        commit = repo.resolve(rev or "main")
        return {
            "id": repo.name,
            "sha": commit.sha,
            "private": repo.private,
            "gated": repo.gated,
            "tags": [],
            "lastModified": DATE,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def auth_check(self, repo: Repo) -> Any:
        return {}

    def refs(self, repo: Repo) -> Any:
        listed: dict[str, list[dict[str, str]]] = {"heads": [], "tags": [], "pr": [], "convert": []}
        for ref, sha in repo.refs.items():
            _, part, name = ref.split("/", 2)
            listed[part].append({"name": name, "ref": ref, "targetCommit": sha})
        return {
            "branches": listed["heads"],
            "tags": listed["tags"],
            "converts": [],
            "pullRequests": listed["pr"],
        }

    def tree(self, repo: Repo, rev: str, path: str) -> Any:
        files, prefix = repo.resolve(rev).files, f"{path}/" if path else ""
        recursive = "true" in [value.lower() for value in self.query.get("recursive", ["false"])]
        entries: dict[str, dict[str, Any]] = {}
        for name, blob in sorted(files.items()):
            if name.startswith(prefix):
                parts = name.removeprefix(prefix).split("/")
                for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                    folder = prefix + "/".join(parts[:depth])
                    entries[folder] = {
                        "type": "directory",
                        "path": folder,
                        "size": 0,
                        "oid": "0" * 40,
                    }
                if recursive or len(parts) == 1:
                    entries[name] = blob.entry(name)
        if prefix and not entries:
            raise RefusalError(404, f"{path} does not exist on {rev}", code="EntryNotFound")
        return list(entries.values())

    def commits(self, repo: Repo, rev: str) -> Any:
        listed, commit = [], repo.resolve(rev)
        while commit is not None:
            listed.append(
                {
                    "id": commit.sha,
                    "title": commit.title,
                    "message": "",
                    "date": DATE,
                    "authors": [],
                }
            )
            commit = commit.parent
        return listed

    def discussions(self, repo: Repo) -> Any:
        author = self.query.get("author", [None])[0]
        found = [pull for pull in repo.pulls if author in (None, pull.author)]
        where = {"name": repo.name, "type": repo.kind[:-1]}
        return {
            "count": len(found),
            "start": 0,
            "discussions": [
                {
                    "num": pull.number,
                    "title": pull.title,
                    "author": {"name": pull.author},
                    "createdAt": DATE,
                    "status": "open",
                    "repo": where,
                    "isPullRequest": True,
                }
                for pull in found
            ],
        }

    def paths_info(self, repo: Repo, rev: str) -> Any:
        files = repo.resolve(rev).files
        asked = parse_qs(self.body.decode()).get("paths", [])
        return [files[path].entry(path) for path in asked if path in files]

    def preupload(self, repo: Repo, rev: str) -> Any:
        held = repo.resolve(rev).files
        answers = []
        for file in json.loads(self.body)["files"]:
            blob = held.get(file["path"])
            answers.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": None if blob is None else blob.sha256 if blob.lfs else blob.oid,
                }
            )
        return {"files": answers}

    def lfs_batch(self, repo: Repo) -> Any:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repo.stored:
                href = f"{self.hub.url}/lfs/{repo.kind}/{repo.name}/{asked['oid']}"
                answer["actions"] = {"upload": {"href": href}}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def lfs_put(self, repo: Repo, path: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != path:
            raise RefusalError(400, "the content does not match its hash")
        repo.stored[path] = self.body
        return {}

    def commit(self, repo: Repo, rev: str) -> Any:
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        ref = rev if rev.startswith("refs/") else f"refs/heads/{rev}"
        if ref not in repo.refs:
            raise RefusalError(404, f"Invalid rev id: {rev}", code="RevisionNotFound")
        head = repo.resolve(ref)
        if header.get("parentCommit", head.sha) != head.sha:
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        files = apply_operations(repo, head.files, lines[1:])
        user = self.user()
        made: dict[str, Any] = {}
        if "create_pr" in self.query and user is not None:
            number = len(repo.pulls) + 1
            repo.pulls.append(Pull(number, header["summary"], user[0]))
            ref = f"refs/pr/{number}"
            made["pullRequestUrl"] = f"{self.hub.url}/{repo.kind}/{repo.name}/discussions/{number}"
        commit = repo.commit(ref, header["summary"], files, parent=head)
        url = f"{self.hub.url}/{repo.kind}/{repo.name}/commit/{commit.sha}"
        return made | {"success": True, "commitOid": commit.sha, "commitUrl": url}

    def create_branch(self, repo: Repo, rev: str) -> Any:
        return self.create_ref(
            repo, f"refs/heads/{rev}", json.loads(self.body or b"{}").get("startingPoint", "main")
        )

    def create_tag(self, repo: Repo, rev: str) -> Any:
        return self.create_ref(repo, f"refs/tags/{json.loads(self.body)['tag']}", rev)

    def create_ref(self, repo: Repo, ref: str, start: str) -> Any:
        if ref in repo.refs:
            raise RefusalError(409, f"Reference already exists: {ref}")
        repo.refs[ref] = repo.resolve(start).sha
        return {}

    def delete_branch(self, repo: Repo, rev: str) -> Any:
        return self.delete_ref(repo, f"refs/heads/{rev}")

    def delete_tag(self, repo: Repo, rev: str) -> Any:
        return self.delete_ref(repo, f"refs/tags/{rev}")

    def delete_ref(self, repo: Repo, ref: str) -> Any:
        if ref not in repo.refs:
            raise RefusalError(404, f"Invalid rev id: {ref}", code="RevisionNotFound")
        del repo.refs[ref]
        return {}

    def resolve(self, repo: Repo, rev: str, path: str) -> Answer:
        commit = repo.resolve(rev)
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            refusal = RefusalError(404, "Entry not found", code="EntryNotFound")
            return 404, headers | refusal.headers, b""
        blob = commit.files[path]
        data = blob.data
        headers["ETag"] = f'"{blob.sha256 if blob.lfs else blob.oid}"'
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(data))}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None:
            return 200, headers, data
        first = int(start[1])
        headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        return 206, headers, data[first:]

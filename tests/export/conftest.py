"""The part of Hugging Face's HTTP interface that a download and an upload of a model use, on this machine."""

import base64
from collections.abc import Iterator
import contextlib
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import threading
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]


class Hub:
    """Repositories in memory: `commits[repo][revision]` are files; branches point to commits."""

    def __init__(self):
        self.commits: dict[str, dict[str, Files]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []

    def create(self, repo: str) -> None:
        if repo not in self.commits:
            self.commits[repo], self.branches[repo] = {}, {}
            self.commit(repo, "main", {})

    def commit(self, repo: str, branch: str, files: Files) -> str:
        sha = hashlib.sha1(f"{repo} {len(self.commits[repo])}".encode()).hexdigest()
        self.commits[repo][sha] = files
        self.branches[repo][branch] = sha
        return sha

    def resolve(self, repo: str, revision: str) -> str | None:
        sha = self.branches[repo].get(revision, revision)
        return sha if sha in self.commits[repo] else None


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Address of a server of `hub`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def hub() -> Hub:
    return Hub()


@pytest.fixture(scope="module")
def endpoint(hub: Hub) -> Iterator[str]:
    """Address of a server of `hub`."""
    with serving(hub) as address:
        yield address


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo, kind = "/".join(parts[2:4]), parts[4] if len(parts) > 4 else "revision"
            revision = parts[5] if len(parts) > 5 else "main"
            sha = self._sha(repo, revision)
            if sha is None:
                return
            files = self.hub.commits[repo][sha]
            if kind == "tree":
                entries = [{"type": "file", "path": k, "size": len(v), "oid": _oid(v)} for k, v in files.items()]
                self._json(entries, {"X-Repo-Commit": sha})
            else:
                siblings = [{"rfilename": k, "size": len(v), "blobId": _oid(v)} for k, v in files.items()]
                self._json({"id": repo, "sha": sha, "siblings": siblings, "private": False, "tags": []})
        elif len(parts) > 4 and parts[2] == "resolve":
            repo = "/".join(parts[:2])
            sha = self._sha(repo, parts[3])
            if sha is not None:
                content = self.hub.commits[repo][sha]["/".join(parts[4:])]
                self._send(200, content, {"X-Repo-Commit": sha, "ETag": f'"{_oid(content)}"'})
        else:
            self._send(404, b"")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            given = json.loads(body)
            repo = f"{given['organization']}/{given['name']}" if given.get("organization") else given["name"]
            self.hub.create(repo)
            self._json({"url": f"http://{self.headers['Host']}/{repo}", "id": repo})
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif parts[4] == "commit":
            repo, branch = "/".join(parts[2:4]), parts[5]
            files = dict(self.hub.commits[repo][self.hub.branches[repo][branch]])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = self.hub.commit(repo, branch, files)
            self._json(
                {"success": True, "commitOid": sha, "commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{sha}"}
            )
        else:
            self._send(404, b"")

    def _sha(self, repo: str, revision: str) -> str | None:
        """The commit, or None after an answer that there is none."""
        if repo not in self.hub.commits:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None
        sha = self.hub.resolve(repo, revision)
        if sha is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        return sha

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _oid(content: bytes) -> str:
    """As git names a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

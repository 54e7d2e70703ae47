"""A stand-in of the hub: the part of its HTTP API that huggingface_hub asks of it to send and to fetch a repository.

    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.repositories["datasets/me/rows"].files   # path -> bytes, after a push

Large files go by Git LFS (basic transfer), as from a machine without the hub's own transfer library; files count as
large by their ending. Every request is in ``asked``; bodies that were uploaded are counted in ``uploaded``.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from local_server import Listening, LocalServer

TOKEN, READER = "hf_of_somebody", "hf_who_only_reads"  # who may write, who may not
LARGE = (".safetensors", ".bin", ".parquet", ".png", ".jpg")


@dataclass
class Repository:
    """``commits``: what each commit did, as (operation, path), oldest first."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[list[tuple[str, str]]] = field(default_factory=list)

    @property
    def head(self) -> str:
        return hashlib.sha1(repr((sorted(self.files.items()), len(self.commits))).encode()).hexdigest()


class HubServer(LocalServer):
    """Serves from entering to leaving. ``trouble``: a part of a path -> the status that such requests get."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}  # "me/model", "datasets/me/rows"
        self.large: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.uploaded: Counter[str] = Counter()  # how often each of them was sent
        self.asked: list[str] = []
        self.trouble: dict[str, int] = {}
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Listening
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.server.owner, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append(f"{self.command} {path}")
        status = next((status for part, status in hub.trouble.items() if part in path), None)
        if status is not None:
            return self._error(status, "no luck today")
        if path.startswith("/objects/"):  # where an upload goes: a signed address, which needs no token
            digest = path.removeprefix("/objects/")
            assert hashlib.sha256(body).hexdigest() == digest
            hub.large[digest] = body
            hub.uploaded[digest] += 1
            return self._json({})
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in (TOKEN, READER):
            return self._error(401, "Invalid credentials in Authorization header")
        if self.command == "POST" and token == READER and not path.endswith("/validate-yaml"):
            return self._error(403, "Forbidden: this token has no write access")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts[:3] == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[0] == "api" and parts[1] in ("models", "datasets") and len(parts) >= 4:
            name = "/".join(([] if parts[1] == "models" else ["datasets"]) + parts[2:4])
            return self._of(name, parts[4:], body)
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if "resolve" in parts:
            at = parts.index("resolve")
            return self._file("/".join(parts[:at]), "/".join(parts[at + 2 :]))
        return self._error(404, "nothing here")

    def _create(self, asked: dict[str, Any]) -> None:
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        name = kind + "/".join(filter(None, (asked.get("organization"), asked["name"])))
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.owner.repositories[name] = Repository(private)
        self._json({"url": f"{self.server.owner.url}/{name}"})

    def _of(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.server.owner.repositories.get(name)
        if repository is None:
            return self._error(404, "Repository not found", code="RepoNotFound")
        match rest[0] if rest else "":
            case "" | "revision":
                siblings = [{"rfilename": path} for path in repository.files]
                bare = name.removeprefix("datasets/")
                about = {"id": bare, "sha": repository.head, "private": repository.private, "siblings": siblings}
                self._json({"_id": bare, "tags": [], "downloads": 0, "likes": 0, "gated": False, **about})
            case "tree":
                files = repository.files.items()
                self._json([{"type": "file", "path": p, "size": len(b), "oid": _blob(b)} for p, b in files])
            case "preupload":
                self._json({"files": [self._mode(repository, file) for file in json.loads(body)["files"]]})
            case "commit":
                self._commit(name, repository, [json.loads(line) for line in body.splitlines()])
            case _:
                self._error(404, "nothing here")

    def _mode(self, repository: Repository, file: dict[str, Any]) -> dict[str, Any]:
        large, present = file["path"].endswith(LARGE), repository.files.get(file["path"])
        oid = None if present is None else hashlib.sha256(present).hexdigest() if large else _blob(present)
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _batch(self, asked: dict[str, Any]) -> None:
        hub = self.server.owner
        objects: list[dict[str, Any]] = [{"oid": o["oid"], "size": o["size"]} for o in asked["objects"]]
        for entry in objects:
            if entry["oid"] not in hub.large:
                entry["actions"] = {"upload": {"href": f"{hub.url}/objects/{entry['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, lines: list[dict[str, Any]]) -> None:
        done = []
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                repository.files[value["path"]] = self.server.owner.large[value["oid"]]
            elif kind == "deletedFile":
                del repository.files[value["path"]]
            if kind != "header":
                done.append((kind, value["path"]))
        repository.commits.append(done)
        oid = repository.head
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.server.owner.url}/{name}/commit/{oid}"})

    def _file(self, name: str, path: str) -> None:
        repository = self.server.owner.repositories.get(name)
        if repository is None or path not in repository.files:
            return self._error(404, "Entry not found", code="EntryNotFound")
        content = repository.files[path]
        headers = {"ETag": f'"{_blob(content)}"', "X-Repo-Commit": repository.head}
        self._send(200, content, "application/octet-stream", headers)

    def _error(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), "application/json", {})

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _blob(content: bytes) -> str:
    """As git names a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

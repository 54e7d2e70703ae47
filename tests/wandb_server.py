"""A W&B server of our own making, with as much of its API as a dashboard and a `wandb sync` need.

It takes what it is given: what the real server checks, this one does not.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "team"


@dataclass
class Kept:
    """An artifact. ``files``: what was uploaded, by name; a reference is in ``manifest`` alone."""

    given: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    committed: bool = False
    used: bool = False

    @property
    def name(self) -> str:
        return str(self.given["artifactCollectionName"])

    @property
    def manifest(self) -> dict[str, Any]:
        contents: dict[str, Any] = json.loads(self.files["wandb_manifest.json"])["contents"]
        return contents


@dataclass
class WandbServer:
    """``views``: by id, workspaces and reports. ``asked``: the names of the operations so far. ``refusal``: what every
    change is answered with."""

    projects: tuple[str, ...] = ("mathse",)
    refusal: str | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Kept] = field(default_factory=list)

    def post(self, path: str, body: bytes) -> dict[str, Any]:
        asked = json.loads(body) if body and "otel" not in path else {}
        if path.endswith("/file_stream"):
            self._stream(asked.get("files", {}))
        if path != "/graphql":
            return {}
        query, variables = asked["query"], asked.get("variables") or {}
        match = re.match(r"\s*(query|mutation)\s+(\w+)", query)
        kind, name = match.groups() if match else ("", "")
        self.asked.append(name)
        if self.refusal and kind == "mutation":
            return {"data": None, "errors": [{"message": self.refusal}]}
        return {"data": self._answer(name, query, variables | (variables.get("input") or {}))}

    def put(self, path: str, body: bytes) -> None:
        """A file's content, at the address that ``_place`` gave for it."""
        _, _, number, name = path.split("/", 3)
        if number != "run":
            self.artifacts[int(number)].files[name] = body

    def _answer(self, name: str, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if hasattr(self, f"_{name}"):
            data: dict[str, Any] = getattr(self, f"_{name}")(given)
            return data
        if "upsertView" in query:
            return {"upsertView": {"view": self._upsert(given), "inserted": True}}
        if "allViews" in query:
            return {"project": self._views(given)}
        viewer = {"id": "user", "entity": ENTITY, "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer}

    # --- dashboards ---

    def _GetProjects(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = [{"node": self._project(project)} for project in self.projects]
        return {"models": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def _project(self, name: str) -> dict[str, Any]:
        about = {"entityName": ENTITY, "createdAt": "", "isBenchmark": False, "user": None}
        return {"id": name, "internalId": name, "name": name, "entity": {"id": ENTITY, "name": ENTITY}, **about}

    def _views(self, wanted: dict[str, Any]) -> dict[str, Any]:
        kind, name = wanted.get("viewType", "runs"), wanted.get("viewName")
        found = [v for v in self.views.values() if v["type"] == kind and name in (None, v["name"])]
        about = {"user": None, "updatedAt": "", "createdAt": ""}
        edges = [{"node": about | view, "cursor": view["id"]} for view in found]
        return {"allViews": {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}}

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        view = given | {"id": given.get("id") or f"view{len(self.views)}"}
        self.views[view["id"]] = view
        return view | {"project": self._project(given["projectName"]), "updatedAt": "2026-01-01T00:00:00"}

    # --- runs ---

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"model": {"id": "model", "name": "mathse", "entity": {"id": ENTITY, "name": ENTITY}, "bucket": None}}

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        self.run |= {key: value for key, value in given.items() if value is not None}
        names = {"name": given["name"], "displayName": given["name"], "description": "", "sweepName": None}
        bucket = {"id": "bucket", **names, "config": "{}", "historyLineCount": 0, "project": self._project("mathse")}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _stream(self, files: dict[str, Any]) -> None:
        self.history += map(json.loads, files.get("wandb-history.jsonl", {}).get("content", []))
        for content in files.get("wandb-summary.json", {}).get("content", []):
            self.summary = json.loads(content)

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": name, "uploadUrl": self._place("run", name)} for name in given["files"]]
        return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts.append(Kept(given))
        number = str(len(self.artifacts) - 1)
        sequence = {"id": given["artifactCollectionName"], "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": number, "state": "PENDING", "artifactSequence": sequence}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        name = "wandb_manifest.json"
        file = {"id": name, "name": name, "displayName": name, "uploadHeaders": [], "md5": "",
                "uploadUrl": self._place(given["artifactID"], name)}  # fmt: skip
        return {"createArtifactManifest": {"artifactManifest": {"id": f"m{given['artifactID']}", "file": file}}}

    _UpdateArtifactManifest = _CreateArtifactManifest

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = [
            {"node": {"storagePath": file["name"], "uploadUrl": self._place(file["artifactID"], file["name"]),
                      "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}}
            for file in given["artifactFiles"]
        ]  # fmt: skip
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        kept = self.artifacts[int(given["artifactID"])]
        kept.committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": kept.given["digest"]}}}

    def _UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[int(given["artifactID"])].used = True
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    def _place(self, number: str, name: str) -> str:
        return f"{self.url}/upload/{number}/{name}"


@contextmanager
def serving(**settings: Any) -> Iterator[WandbServer]:
    server, lock = WandbServer(**settings), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self._body()
            with lock:
                self._reply(json.dumps(server.post(self.path, body)).encode())

        def do_PUT(self) -> None:
            body = self._body()
            with lock:
                server.put(self.path, body)
            self._reply(b"")

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()

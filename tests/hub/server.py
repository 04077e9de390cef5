"""A model hub on loopback: repositories in memory, and the endpoints of the real one that huggingface_hub asks.

Faults are planted by path: a status, a reply cut short, other bytes than it says, or no reply at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LARGE = (".safetensors", ".gguf", ".parquet", ".bin", ".zst", ".gz")  # kept in large file storage, known by SHA-256


@dataclass(slots=True)
class Repo:
    """A repository with one branch; `commits` are names of what it was before, by revision."""

    files: dict[str, bytes] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    @property
    def sha(self) -> str:
        text = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in sorted(self.files.items())})
        return hashlib.sha1(text.encode()).hexdigest()

    def at(self, revision: str) -> dict[str, bytes] | None:
        if revision in ("main", self.sha):
            return self.files
        return self.commits.get(revision)

    def sha_of(self, revision: str) -> str:
        return self.sha if revision == "main" else revision


@dataclass(slots=True)
class Fault:
    """`times` answers to what matches `pattern` ("PUT /lfs/...") are spoilt, -1: all; `how`: see Hub.spoil."""

    pattern: str
    how: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    times: int = -1


@dataclass(slots=True)
class Hub:
    repos: dict[str, Repo] = field(default_factory=dict)  # by "models/ID" and "datasets/ID"
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by SHA-256
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    owners: set[str] = field(default_factory=lambda: {"me"})  # names that the token may write for
    endpoint: str = ""

    def model(self, name: str) -> Repo:
        return self.repos.setdefault(f"models/{name}", Repo())

    def dataset(self, name: str) -> Repo:
        return self.repos.setdefault(f"datasets/{name}", Repo())

    def spoil(self, pattern: str, how: str, status: int = 0, times: int = -1, **headers: str) -> None:
        """`how`: "status"; "cut", half of the answer; "other", a bit of it turned; "gone", none; "spoil", a file
        that is stored as another."""
        self.faults.append(Fault(pattern, how, status, headers, times))


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers on a port of its own until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def blob(data: bytes) -> str:
    """What git calls a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    do_PUT = do_POST

    def _answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.hub.asked.append(asked)
        self.fault = next((one for one in self.hub.faults if one.times and re.search(one.pattern, asked)), None)
        if self.fault is not None:
            self.fault.times -= 1
            if self.fault.how == "gone":
                self.close_connection = True
                self.connection.close()
                return
            if self.fault.how == "status":
                self._send({"error": f"planted {self.fault.status}"}, self.fault.status, **self.fault.headers)
                return
        routes: list[tuple[str, Callable[..., None]]] = [
            (r"GET /api/whoami-v2", self._whoami),
            (r"POST /api/validate-yaml", lambda body: self._send({"errors": [], "warnings": []})),
            (r"POST /api/repos/create", self._create),
            (r"PUT /lfs/(?P<oid>\w+)", self._store),
            (r"POST /(?P<name>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", self._batch),
            (r"GET /api/(?P<kind>\w+)/(?P<name>[\w.-]+/[\w.-]+)/tree/(?P<revision>[^/]+)/?(?P<path>.*)", self._tree),
            (r"POST /api/(?P<kind>\w+)/(?P<name>[\w.-]+/[\w.-]+)/paths-info/(?P<revision>.+)", self._paths),
            (r"POST /api/(?P<kind>\w+)/(?P<name>[\w.-]+/[\w.-]+)/preupload/(?P<revision>.+)", self._preupload),
            (r"POST /api/(?P<kind>\w+)/(?P<name>[\w.-]+/[\w.-]+)/commit/(?P<revision>.+)", self._commit),
            (r"GET /api/(?P<kind>\w+)/(?P<name>[\w.-]+/[\w.-]+)(/revision/(?P<revision>.+))?", self._info),
            (
                r"(GET|HEAD) /(?P<kind>datasets/)?(?P<name>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
                self._file,
            ),
        ]
        for pattern, route in routes:
            if match := re.fullmatch(pattern, asked):
                route(body=body, **match.groupdict())
                return
        self._send({"error": f"no such place: {asked}"}, 404)

    def _send(self, what: Any, status: int = 200, **headers: str) -> None:
        data = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.how == "other" and data:
            data = bytes([data[0] ^ 1]) + data[1:]
        if self.fault is not None and self.fault.how == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, kind: str, name: str) -> Repo | None:
        """The repository, or an answer that says why not."""
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None or (repo.private and not self._known()):
            self._send({"error": "Repository not found"}, 404 if self._known() else 401, X_Error_Code="RepoNotFound")
            return None
        if repo.gated and not self._known():
            said = f"Access to {name} is restricted"
            self._send({"error": said}, 403, X_Error_Code="GatedRepo", X_Error_Message=said)
            return None
        return repo

    def _files(self, repo: Repo, revision: str) -> dict[str, bytes] | None:
        files = repo.at(revision)
        if files is None:
            self._send({"error": f"Invalid rev id: {revision}"}, 404, X_Error_Code="RevisionNotFound")
        return files

    def _whoami(self, body: bytes) -> None:
        if self._known():
            self._send({"name": "me", "type": "user", "auth": {}, "orgs": []})
        else:
            self._send({"error": "Invalid credentials in Authorization header"}, 401)

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or "me"
        kind, name = f"{asked.get('type') or 'model'}s", f"{owner}/{asked['name']}"
        if not self._known():
            self._send({"error": "Invalid username or password."}, 401)
        elif owner not in self.hub.owners:
            self._send({"error": f"You don't have the rights to create a model under the namespace {owner}"}, 403)
        elif f"{kind}/{name}" in self.hub.repos:
            self._send({"error": "You already created this model repo", "url": f"{self.hub.endpoint}/{name}"}, 409)
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repos[f"{kind}/{name}"] = Repo(files={".gitattributes": b"*.gguf filter=lfs\n"}, private=private)
            self._send({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def _info(self, kind: str, name: str, revision: str | None, body: bytes) -> None:
        repo = self._repo(kind, name)
        if repo is None or (files := self._files(repo, revision or "main")) is None:
            return
        siblings = [{"rfilename": path, "size": len(data)} for path, data in sorted(files.items())]
        told = {"id": name, "sha": repo.sha_of(revision or "main"), "private": repo.private, "gated": repo.gated}
        self._send({**told, "siblings": siblings, "tags": [], "downloads": 0, "disabled": False})

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob(data)}
        if path.endswith(LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 132}
        return entry

    def _tree(self, kind: str, name: str, revision: str, path: str, body: bytes) -> None:
        repo = self._repo(kind, name)
        if repo is None or (files := self._files(repo, revision)) is None:
            return
        inside = f"{path.rstrip('/')}/" if path else ""
        found = {one: data for one, data in sorted(files.items()) if one.startswith(inside)}
        if inside and not found:
            self._send({"error": f"{path} does not exist"}, 404, X_Error_Code="EntryNotFound")
            return
        folders = {f"{inside}{one.removeprefix(inside).split('/')[0]}" for one in found if "/" in one[len(inside) :]}
        if "recursive=true" in self.path.lower():
            folders = {one.rpartition("/")[0] for one in found if "/" in one[len(inside) :]}
        else:
            found = {one: data for one, data in found.items() if "/" not in one[len(inside) :]}
        entries = [{"type": "directory", "path": one, "size": 0, "oid": "0" * 40} for one in sorted(folders)]
        self._send(entries + [self._entry(one, data) for one, data in found.items()])

    def _paths(self, kind: str, name: str, revision: str, body: bytes) -> None:
        repo = self._repo(kind, name)
        if repo is None or (files := self._files(repo, revision)) is None:
            return
        text = body.decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else re.findall(r"paths=([^&]+)", unquote(text))
        entries = [self._entry(one, files[one]) for one in asked if one in files]
        folders = [one for one in asked if any(path.startswith(f"{one}/") for path in files)]
        self._send(entries + [{"type": "directory", "path": one, "size": 0, "oid": "0" * 40} for one in folders])

    def _file(self, kind: str | None, name: str, revision: str, path: str, body: bytes) -> None:
        repo = self._repo("datasets" if kind else "models", name)
        if repo is None or (files := self._files(repo, revision)) is None:
            return
        if path not in files:
            self._send({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return
        data = files[path]
        oid = hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else blob(data)
        headers: dict[str, Any] = {"ETag": f'"{oid}"', "X_Repo_Commit": repo.sha_of(revision), "Accept_Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(match[1]), int(match[2]) + 1 if match[2] else len(data)
            self._send(data[start:stop], 206, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}", **headers)
            return
        self._send(data, **headers)

    def _writable(self, kind: str, name: str) -> Repo | None:
        if not self._known():
            self._send({"error": "Invalid username or password."}, 401)
            return None
        if name.partition("/")[0] not in self.hub.owners:
            self._send({"error": "Authorization error."}, 403)
            return None
        return self._repo(kind, name)

    def _preupload(self, kind: str, name: str, revision: str, body: bytes) -> None:
        repo = self._writable(kind, name)
        if repo is None:
            return
        files = []
        for one in json.loads(body)["files"]:
            path, known = one["path"], repo.files.get(one["path"])
            mode = "lfs" if path.endswith(LARGE) else "regular"
            oid = None if known is None else self._entry(path, known).get("lfs", {}).get("oid", blob(known))
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send({"files": files})

    def _batch(self, name: str, body: bytes) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}", "header": {}}}
            known = one["oid"] in self.hub.stored
            objects.append({**one, "authenticated": True, **({} if known else {"actions": upload})})
        self._send({"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> None:
        if self.fault is not None and self.fault.how == "spoil":
            body = b"other " + body
        elif hashlib.sha256(body).hexdigest() != oid:
            self._send({"error": "checksum mismatch"}, 400)
            return
        self.hub.stored[oid] = body
        self._send({})

    def _commit(self, kind: str, name: str, revision: str, body: bytes) -> None:
        repo = self._writable(kind, name)
        if repo is None:
            return
        files = dict(repo.files)
        for line in body.splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    self._send({"error": f"no such object: {value['oid']}"}, 400)
                    return
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif one["key"] == "deletedFile":
                files.pop(value["path"], None)
        repo.commits[repo.sha], repo.files = repo.files, files
        self._send({"commitUrl": f"{self.hub.endpoint}/{name}/commit/{repo.sha}", "commitOid": repo.sha})

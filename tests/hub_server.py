"""A Hugging Face hub on this machine: the few endpoints that the hub's own client reads from."""

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import faulty_server
from faulty_server import Faults, Faulty

GRANTED = "hf_granted"  # the token of a user who accepted every licence


@dataclass
class Repository:
    """commits: a folder of files per commit; refs: the commit of each branch and tag."""

    commits: dict[str, Path]
    refs: dict[str, str]
    gated: bool = False

    def files(self, commit: str) -> dict[str, Path]:
        folder = self.commits[commit]
        return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass
class Hub:
    """repositories: by "models/org/name" or "datasets/org/name"; downloads: the files sent, with the first digit of their commit; faults: what happens to answers."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    endpoint: str = ""
    faults: Faults = field(default_factory=Faults)


class Handler(Faulty):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(parse_qs(body).get("paths", []))

    def answer(self, asked: Collection[str] = ()) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/([a-z-]+)/([^/]+)(.*))?", path)
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if api:
            kind, name, what, revision, inside = api.groups()
        elif file:
            kind, name, revision, inside = file.groups()
            kind, what = "datasets" if kind else "models", "resolve"
        else:
            return self.refuse(404, "EntryNotFound")
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        commit = repository.refs.get(revision or "main", revision)
        if commit not in repository.commits:
            return self.refuse(404, "RevisionNotFound")
        if what == "resolve":
            return self.send_file(repository, kind, name, commit, inside)
        if what in (None, "revision"):
            return self.send({"id": name, "sha": commit, "siblings": []})
        entries = self.entries(repository, commit)
        if what == "paths-info":
            return self.send([entry for entry in entries if entry["path"] in asked])
        inside = inside.strip("/")
        return self.send([e for e in entries if not inside or e["path"].startswith(f"{inside}/")])

    def entries(self, repository: Repository, commit: str) -> list[dict]:
        found = []
        for path, file in repository.files(commit).items():
            content = file.read_bytes()
            digest = hashlib.sha1(content).hexdigest()
            found.append({"type": "file", "path": path, "size": len(content), "oid": digest})
        return found

    def send_file(
        self, repository: Repository, kind: str, name: str, commit: str, path: str
    ) -> None:
        token = self.headers.get("Authorization")
        if repository.gated and path != "README.md" and token != f"Bearer {GRANTED}":
            return self.refuse(403 if token else 401, "GatedRepo")
        files = repository.files(commit)
        if path not in files:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        content = files[path].read_bytes()
        # As the hub does of large files, in Git LFS, and of others.
        large = path.endswith((".safetensors", ".bin", ".gguf"))
        digest = hashlib.new("sha256" if large else "sha1", content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if self.command == "GET":
            self.hub.downloads.append(f"{kind}/{name}@{commit[0]}/{path}")
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None:
            return self.reply(200, content, headers)
        rest, size = content[int(start[1]) :], len(content)
        headers["Content-Range"] = f"bytes {start[1]}-{size - 1}/{size}"
        self.reply(206, rest, headers)

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": code} | (headers or {}))

    def send(self, content: object) -> None:
        self.reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve it at hub.endpoint until the block ends."""
    with faulty_server.serve(Handler, hub.faults, hub=hub):
        hub.endpoint = hub.faults.address
        yield hub

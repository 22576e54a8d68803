"""A Hugging Face hub in miniature, over HTTP: the few routes that downloading a repository takes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves one repository, the files of a folder."""

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository = repository
        self.folder = folder
        self.downloads: list[str] = []
        """The files that were sent, in order."""
        self.url = ""
        self.held = ""
        """A file that is sent no further than its headers, while this is its name."""
        self.is_held = threading.Event()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        api = f"/api/models/{self.repository}"
        if path in (api, f"{api}/revision/main"):
            return self._json({"id": self.repository, "sha": COMMIT, "siblings": []})
        if path == f"{api}/tree/{COMMIT}":
            return self._json([self._entry(file) for file in sorted(self.folder.rglob("*")) if file.is_file()])
        for revision in ("main", COMMIT):
            start = f"/{self.repository}/resolve/{revision}/"
            file = self.folder / path.removeprefix(start)
            if path.startswith(start) and file.is_file():
                etag = hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
                return 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""

    def _json(self, value: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    def _entry(self, file: Path) -> dict[str, Any]:
        path = file.relative_to(self.folder).as_posix()
        return {"type": "file", "path": path, "size": file.stat().st_size, "oid": "0" * 40}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: Any) -> None:
        self._hub = hub
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        status, headers, body = self._hub.answer(path)
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        while self.command == "GET" and self._hub.held and path.endswith(self._hub.held):
            self._hub.is_held.set()
            time.sleep(0.1)
        if self.command == "GET":
            self.wfile.write(body)
            if "/resolve/" in path and status == 200:
                self._hub.downloads.append(Path(path).name)

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        """Tests print nothing."""


@contextmanager
def serve_hub(repository: str, folder: Path) -> Iterator[Hub]:
    """A hub at its `url`, for `HF_ENDPOINT`."""
    hub = Hub(repository, folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub)) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()

"""The playground's routes: its page, its files, the sample; who may load them and what may not be reached through them.

What the page does is tested in a browser, under `tests/browser`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from conftest import RunningServer

from auricle.http.playground import CONTENT_SECURITY_POLICY, STATIC

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in STATIC.iterdir())
TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@pytest.fixture(scope="module")
def web(server: RunningServer):
    """A client without a key."""
    with httpx.Client(base_url=server.root_url) as client:
        yield client


def references(name: str) -> set[str]:
    """The files of ours that a file names: in a page's attributes, a script's imports, a worklet's address."""
    text = (STATIC / name).read_text()
    if name.endswith(".html"):
        return set(re.findall(r'(?:src|href)="/playground/([^"]+)"', text))
    return set(re.findall(r"""(?:from |import |import\(|new URL\()'\./([^']+)'""", text))


def test_page_is_served_at_the_root(web: httpx.Client) -> None:
    page = web.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == TYPES["html"]
    assert "<title>Auricle playground</title>" in page.text
    assert web.head("/").status_code == 200


@pytest.mark.parametrize("name", FILES)
def test_files_have_their_types_and_are_kept_apart_from_other_sites(web: httpx.Client, name: str) -> None:
    answer = web.get(f"/playground/{name}")
    assert answer.status_code == 200
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["content-type"] == TYPES[name.rpartition(".")[2]]
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_policy_lets_in_nothing_but_this_server() -> None:
    directives = dict(directive.split(" ", 1) for directive in CONTENT_SECURITY_POLICY.split("; "))
    assert directives["default-src"] == "'none'"
    assert set(directives.values()) == {"'none'", "'self'"}
    assert directives["frame-ancestors"] == "'none'"


def test_unchanged_files_are_not_sent_again(web: httpx.Client) -> None:
    first = web.get("/playground/main.js")
    assert first.headers["cache-control"] == "no-cache"
    again = web.get("/playground/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""


def test_sample_is_speech_that_a_browser_can_play(web: httpx.Client) -> None:
    answer = web.get("/playground/sample.wav")
    assert answer.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as recording:
        assert recording.getnchannels() == 1
        assert 40 < recording.getnframes() / recording.getframerate() < 50
    part = web.get("/playground/sample.wav", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")


@pytest.mark.parametrize(
    "path",
    [
        "/playground/",
        "/playground/none.js",
        "/playground/../playground.py",
        "/playground/%2e%2e/playground.py",
        "/playground/..%2fplayground.py",
        "/playground//etc/passwd",
        "/playground/sample.wav/../LICENSE",
    ],
)
def test_nothing_else_is_reached(server: RunningServer, path: str) -> None:
    # The client's own address would be tidied up before it is sent.
    url = httpx.URL(server.root_url).copy_with(raw_path=path.encode())
    answer = httpx.get(url)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


def test_no_key_is_needed_where_the_api_wants_one(server_with: Callable[..., RunningServer]) -> None:
    server = server_with(AURICLE_API_KEYS="a-key-of-this-test")
    assert httpx.get(f"{server.base_url}/models").status_code == 401
    for path in ("/", "/playground/main.js", "/playground/sample.wav"):
        assert httpx.get(server.root_url + path).status_code == 200


def test_every_file_is_used_and_every_file_used_is_there() -> None:
    reached, open_files = set(), {"index.html"}
    while open_files:
        name = open_files.pop()
        reached.add(name)
        open_files |= references(name) - reached
    assert reached == set(FILES)


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name in FILES:
        text = (STATIC / name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"""(?:src|href|import|from|url)\W{0,3}(?:https?:)?//""", text), name


@pytest.mark.parametrize("name", FILES)
def test_files_are_short_and_say_what_they_are(name: str) -> None:
    text = (STATIC / name).read_text()
    assert len(text.splitlines()) <= 500
    if name.endswith((".js", ".css")):
        assert text.startswith("/*")


def test_wheel_carries_the_playground(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {f"auricle/http/static/{name}" for name in FILES} <= names

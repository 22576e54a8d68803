"""The page around the transcript: files of it, programs for it, the keyboard, screen readers, other origins' pages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from browsing import WAIT_MS, Faults, Playground, check_sessions, write_wav
from clips import silence, wire_bytes
from conftest import RunningServer
from playwright.sync_api import Browser, Page, expect
from wire import BEST_OF_TIMES, MODEL, best_of_times, spoken
from words import said

SETTLING_S = 4
KEY = "sk-of-this-test"


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser], tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """One whose microphone hears a turn of speech."""
    heard = np.concatenate([silence(SETTLING_S), spoken(best_of_times(), 3)])
    return launch(write_wav(tmp_path_factory.mktemp("microphone") / "best of times.wav", heard))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("recording") / "best of times.wav", spoken(best_of_times()))


def test_transcript_is_downloaded_in_every_format(playground: Playground, recording: Path) -> None:
    for kind in ("TXT", "SRT", "VTT", "JSON"):
        expect(playground.page.get_by_role("button", name=f"Download as {kind}")).to_be_disabled()
    playground.setting("words").check()
    playground.choose_file(recording)
    playground.start()
    playground.until("done")
    files = {}
    for kind in ("txt", "srt", "vtt", "json"):
        with playground.page.expect_download() as download:
            playground.page.get_by_role("button", name=f"Download as {kind.upper()}").click()
        assert download.value.suggested_filename == f"transcript.{kind}"
        files[kind] = Path(download.value.path()).read_text()
    [text] = playground.texts
    assert files["txt"] == text + "\n"
    assert files["srt"].startswith("1\n00:00:0")
    assert files["vtt"].startswith("WEBVTT\n")
    assert all(text in file for file in files.values())
    [item] = [item for item in json.loads(files["json"])["items"] if item["text"]]
    assert item["text"] == text
    assert 0 <= item["start_ms"] < 1000 < item["end_ms"] < 6000
    assert " ".join(word["word"] for word in item["words"]) == text
    assert item["start_ms"] / 1000 <= item["words"][0]["start"] < item["words"][-1]["end"] <= item["end_ms"] / 1000


def test_program_on_the_page_runs_as_it_stands(playground: Playground, tmp_path: Path) -> None:
    playground.tab("Use it in your code")
    (tmp_path / "program.py").write_text(playground.page.locator("#code").inner_text())
    (tmp_path / "speech.raw").write_bytes(wire_bytes(best_of_times()))
    command = [sys.executable, "program.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_MS / 1000)
    assert result.returncode == 0, result.stderr
    assert said(result.stdout, BEST_OF_TIMES), result.stdout


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.value || ''")


def test_keys_are_enough_from_start_to_stop(playground: Playground) -> None:
    page = playground.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    while focused(page) != "microphone":
        page.keyboard.press("Tab")
        assert focused(page) != "start"
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert focused(page) == "sample"
    while focused(page) != "start":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playground.until("listening")
    playground.until_completed("best of times")
    assert focused(page) == "start"
    page.keyboard.press("Enter")
    playground.until("done")
    assert focused(page) == "start", "who works by keys is thrown back to the page's beginning"
    while focused(page) != "tab-session":
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel-events")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#panel-code")).to_be_visible()


def test_completed_items_are_announced(playground: Playground, recording: Path) -> None:
    region = playground.page.get_by_role("log")
    expect(region).to_have_attribute("aria-live", "polite")
    expect(region).to_be_empty()
    playground.choose_file(recording)
    playground.start()
    playground.until("done")
    [text] = playground.texts
    expect(region).to_contain_text(text)
    expect(region).to_contain_text("Transcription ended")


def test_theme_is_the_persons_and_outlives_the_page(playground: Playground) -> None:
    page, root = playground.page, playground.page.locator("html")
    button = page.locator("#theme")
    for theme in ("light", "dark"):
        button.click()
        expect(root).to_have_attribute("data-theme", theme)
        expect(button).to_have_accessible_name(f"Theme: {theme}")
    page.reload()
    expect(root).to_have_attribute("data-theme", "dark")


# Pages of other origins


CALL = """async ({base, key}) => {
  const peer = new RTCPeerConnection();
  const media = await navigator.mediaDevices.getUserMedia({ audio: true });
  peer.addTrack(media.getAudioTracks()[0], media);
  const channel = peer.createDataChannel('oai-events');
  const events = [];
  const text = new Promise((resolve) => {
    channel.onmessage = ({ data }) => {
      events.push(JSON.parse(data));
      const { type, transcript } = events.at(-1);
      if (type.endsWith('.completed') && transcript) resolve(transcript);
    };
  });
  await peer.setLocalDescription();
  const answer = await fetch(`${base}/realtime/calls`, {
    method: 'POST',
    body: peer.localDescription.sdp,
    headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/sdp' },
  });
  const location = answer.headers.get('Location');
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  const transcript = await Promise.race([text, new Promise((resolve) => setTimeout(resolve, 30000, ''))]);
  peer.close();
  return { status: answer.status, location, transcript, events };
}"""


class _Page(SimpleHTTPRequestHandler):
    """A page that somebody else serves."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def other_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a web server that is not ours."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><link rel=icon href=data:,><title>Somebody's page</title>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Page, directory=folder)) as site:
        thread = Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


def test_allowed_page_of_another_origin_calls_with_an_ephemeral_key(
    server_with: Callable[..., RunningServer], other_origin: str, page: Page
) -> None:
    server = server_with(AURICLE_API_KEYS=KEY, AURICLE_ALLOWED_ORIGINS=other_origin)
    session = {"type": "transcription", "audio": {"input": {"transcription": MODEL}}}
    minted = httpx.post(
        f"{server.base_url}/realtime/client_secrets",
        json={"session": session},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    key = minted.raise_for_status().json()["value"]
    page.goto(other_origin)
    result = page.evaluate(CALL, {"base": server.base_url, "key": key})
    assert result["status"] == 201
    assert result["location"].startswith("/v1/realtime/calls/rtc_")
    assert said(result["transcript"], BEST_OF_TIMES), result["transcript"]
    check_sessions(result["events"])


@pytest.mark.parametrize("allowed", ["", "https://app.example.com"])
def test_other_page_of_another_origin_gets_nowhere(
    server_with: Callable[..., RunningServer],
    server: RunningServer,
    other_origin: str,
    page: Page,
    faults: Faults,
    allowed: str,
) -> None:
    faults.expected += ["CORS", "ERR_FAILED", "403", "WebSocket connection"]
    refusing = server_with(AURICLE_ALLOWED_ORIGINS=allowed) if allowed else server
    page.goto(other_origin)
    for path in ("/realtime/client_secrets", "/realtime/calls"):
        source = "([url]) => fetch(url, {method: 'POST', body: '{}'}).then(() => 'read', (error) => error.name)"
        assert page.evaluate(source, [refusing.base_url + path]) == "TypeError"
    socket = """([url]) => new Promise((resolve) => {
      const socket = new WebSocket(url, ['realtime', 'openai-insecure-api-key.any']);
      socket.onopen = () => resolve('open');
      socket.onclose = ({ code }) => resolve(code);
    })"""
    assert page.evaluate(socket, [refusing.socket_url + "?intent=transcription"]) == 1006
    assert httpx.get(f"{refusing.root_url}/health").json()["sessions"] == 0

"""What stands between a page and its session: keys, a blocked microphone, a full server, a lost connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browsing import (
    TRANSPORTS,
    WAIT_MS,
    Faults,
    Playground,
    Transport,
    check_sessions,
    new_page,
    transcripts,
    write_wav,
)
from conftest import RunningServer
from playwright.sync_api import Browser, Page, expect
from wire import open_wire, opening, spoken

KEY = "sk-of-this-test"
LOST = ["ERR_CONNECTION", "WebSocket connection", "net::ERR", "/v1/realtime", "503"]
"""What a browser says of a server that ends or is gone."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 s of speech, of which enough is left where a server was ended amid them."""
    return write_wav(tmp_path_factory.mktemp("recording") / "opening.wav", spoken(opening()))


def kept(page: Page) -> str:
    """Everything that a browser keeps of a page."""
    stores = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    return stores + json.dumps(page.context.cookies()) + json.dumps(page.context.storage_state())


def enter_key(playground: Playground, key: str) -> None:
    playground.page.get_by_label("API key", exact=True).fill(key)
    playground.page.get_by_role("button", name="Use key").click()


def test_key_is_asked_for_once_and_never_kept(
    server_with: Callable[..., RunningServer], open_page: Callable[[RunningServer], Playground], faults: Faults
) -> None:
    faults.expected.append("401")
    playground = open_page(server_with(AURICLE_API_KEYS=KEY))
    dialog = playground.page.get_by_role("dialog")
    playground.choose("Sample")
    playground.start()
    expect(dialog).to_contain_text("wants an API key")
    enter_key(playground, "sk-wrong")
    expect(dialog).to_contain_text("not accepted")
    expect(dialog).to_contain_text("Incorrect API key provided")
    enter_key(playground, KEY)
    playground.until("listening")
    playground.stop()
    for transport in TRANSPORTS:
        playground.choose(transport)
        playground.start()
        playground.until("listening")  # without asking again
        expect(dialog).to_be_hidden()
        playground.stop()
    assert KEY not in kept(playground.page) + playground.page.content()
    assert "YOUR_API_KEY" in playground.page.locator("#code").text_content()
    playground.page.reload()
    playground.choose("Sample")
    playground.start()
    expect(dialog).to_be_visible()
    playground.page.get_by_role("button", name="Cancel").click()
    playground.until("failed")
    expect(playground.notice).to_contain_text("API key is needed")


def test_microphone_that_is_not_allowed_leaves_the_sample(
    browser: Browser, faults: Faults, server: RunningServer
) -> None:
    context = browser.new_context(permissions=["clipboard-read"])  # and nothing else
    playground = Playground(new_page(context, faults), server.root_url, faults).open()
    playground.start()
    playground.until("failed")
    expect(playground.notice).to_contain_text("The microphone is blocked")
    playground.page.get_by_role("button", name="Use the sample").click()
    playground.until("listening")
    expect(playground.notice).to_be_hidden()
    playground.stop()
    context.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_full_server_is_tried_again(
    server_with: Callable[..., RunningServer],
    open_page: Callable[[RunningServer], Playground],
    faults: Faults,
    transport: Transport,
) -> None:
    faults.expected.append("503")
    server = server_with(AURICLE_MAX_SESSIONS="1")
    playground = open_page(server)
    playground.choose("Sample")
    playground.choose(transport)
    with open_wire(server.socket_url) as other:
        other.receive()
        playground.start()
        playground.until("full")
        expect(playground.notice).to_contain_text("The server is full")
        expect(playground.start_button).to_have_text("Stop")
    playground.page.get_by_role("button", name="Try now").click()
    playground.until("listening")
    playground.stop()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_restarted_server_is_found_again_and_the_transcript_goes_on(
    server_with: Callable[..., RunningServer],
    open_page: Callable[[RunningServer], Playground],
    faults: Faults,
    recording: Path,
    transport: Transport,
) -> None:
    faults.expected += LOST
    server = server_with()
    playground = open_page(server)
    playground.choose(transport)
    playground.choose_file(recording)
    playground.start()
    # A click before the speech may make an item of its own, without words.
    expect(playground.items.filter(has_text="best").first).to_be_visible(timeout=WAIT_MS)
    before = playground.texts[0]
    server.stop()
    playground.until("reconnecting")
    expect(playground.notice).to_contain_text("connection was lost")
    server_with("--port", str(urlsplit(server.root_url).port))
    playground.until("done")
    expect(playground.page.locator("#transcript .gap")).to_contain_text("in a new session")
    _, second = check_sessions(playground.received())
    # A recording waits until there is a session again: only what was on its way is lost.
    assert playground.texts[0].startswith(before)
    assert "".join(transcripts(second)), playground.texts


def test_server_that_never_was_is_told(playground: Playground, faults: Faults) -> None:
    faults.expected += LOST
    playground.choose("Sample")
    playground.page.context.set_offline(True)
    playground.start()
    playground.until("failed")
    playground.page.context.set_offline(False)
    playground.choose("Sample")
    playground.start()
    playground.until("listening")
    playground.stop()


def test_nothing_is_heard_where_nothing_was_said(playground: Playground, tmp_path: Path) -> None:
    playground.choose_file(write_wav(tmp_path / "silence.wav", np.zeros(16_000, np.float32)))
    playground.start()
    playground.until("done")
    expect(playground.page.locator("#state-text")).to_have_text("Done: nothing was said")


def test_file_that_is_no_audio_is_told(playground: Playground, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("It was the best of times.")
    playground.choose("File")
    playground.start()
    expect(playground.notice).to_contain_text("No file yet")
    playground.choose_file(tmp_path / "words.txt")
    playground.start()
    expect(playground.notice).to_contain_text("can’t be read", timeout=WAIT_MS)

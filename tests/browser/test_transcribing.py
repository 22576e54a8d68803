"""Speech to text on the page, over both transports: the microphone, recordings, commits by hand, the beta dialect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
    of,
    transcripts,
    write_wav,
)
from clips import SHARED_AUDIO, shared_audio, shared_clips, silence
from conftest import RunningServer
from playwright.sync_api import Browser, expect
from wire import (
    ADDED,
    BEST_OF_TIMES,
    COMMITTED,
    COMPLETED,
    DELTA,
    DONE,
    FIRST_WORDS,
    STARTED,
    STOPPED,
    UPDATED,
    best_of_times,
    kinds,
    opening,
    spoken,
)
from words import said

SETTLING_S = 4
"""Silence before speech: a microphone does not wait until there is a session."""


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser], tmp_path_factory: pytest.TempPathFactory) -> Browser:
    """One whose microphone hears two turns of speech."""
    heard = np.concatenate([silence(SETTLING_S), spoken(opening(), 3)])
    return launch(write_wav(tmp_path_factory.mktemp("microphone") / "opening.wav", heard))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A turn of speech as a file, at a rate that is nobody's own."""
    return write_wav(tmp_path_factory.mktemp("recording") / "best of times.wav", spoken(best_of_times()), 22_050)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_microphone_becomes_text_turn_by_turn(playground: Playground, transport: Transport) -> None:
    playground.choose(transport)
    playground.start()
    playground.until_completed("incredulity")
    playground.stop()
    assert said(playground.text, FIRST_WORDS), playground.text
    expect(playground.page.locator("#final")).to_contain_text("ms")

    [session] = check_sessions(playground.received())
    assert playground.texts == [text for text in transcripts(session) if text]
    for item_id in [event["item_id"] for event in of(session, COMMITTED)]:
        of_item = [event for event in session if item_id in (event.get("item_id"), event.get("item", {}).get("id"))]
        assert [kind for kind in kinds(of_item) if kind != DELTA][:5] == [STARTED, STOPPED, COMMITTED, ADDED, DONE]
    kinds_told = kinds(session)
    assert DELTA in kinds_told[: kinds_told.index(STOPPED)], "no word came while it was spoken"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_picked_file_is_transcribed_to_its_end(playground: Playground, recording: Path, transport: Transport) -> None:
    playground.choose(transport)
    playground.choose_file(recording)
    expect(playground.page.locator("#file-name")).to_have_text(recording.name)
    playground.start()
    playground.until("done")
    assert said(playground.text, BEST_OF_TIMES), playground.text
    check_sessions(playground.received())


def test_beta_is_spoken_where_it_is_chosen(playground: Playground, recording: Path) -> None:
    playground.choose("WebRTC")
    playground.choose("Beta")
    playground.choose_file(recording)
    playground.start()
    playground.until("done")
    assert said(playground.text, BEST_OF_TIMES), playground.text
    [session] = check_sessions(playground.received(), "beta")
    assert of(session, UPDATED["beta"])  # with which the end of the audio was waited for


def test_stop_commits_what_was_heard_where_turns_end_by_hand(playground: Playground, recording: Path) -> None:
    playground.choose("WebRTC")
    playground.set("turn_detection", "none")
    playground.choose_file(recording)
    playground.start()
    playground.until("done")
    assert said(playground.text, BEST_OF_TIMES), playground.text
    [session] = check_sessions(playground.received())
    assert (len(of(session, COMMITTED)), of(session, STARTED)) == (1, [])


def test_commit_by_hand_makes_an_item_of_what_was_said(playground: Playground, recording: Path) -> None:
    playground.set("turn_detection", "none")
    playground.choose_file(recording)
    playground.start()
    # Words come before the commit.
    expect(playground.items.first.locator(".item-text")).to_contain_text("best", timeout=60_000)
    playground.page.get_by_role("button", name="Commit").click()
    playground.until("done")
    # Where it was pressed is chance, amid a word perhaps.
    assert "best" in playground.texts[0]
    assert "times" in playground.texts[-1]
    [session] = check_sessions(playground.received())
    assert [len(of(session, kind)) for kind in (COMMITTED, COMPLETED)] == [2, 2]


def test_sample_reads_to_you(playground: Playground) -> None:
    playground.choose("Sample")
    playground.start()
    playground.until_completed("best of times")
    playground.stop()
    check_sessions(playground.received())


@pytest.mark.skipif(not (SHARED_AUDIO / "jfk.flac").exists(), reason="the recordings beside the repository are missing")
def test_president_is_understood(
    launch: Callable[..., Browser], faults: Faults, server: RunningServer, tmp_path: Path
) -> None:
    [clip] = [clip for clip in shared_clips("clean") if clip["id"] == "jfk"]
    heard = np.concatenate([silence(SETTLING_S), spoken(shared_audio(clip["file"]), 3)])
    browser = launch(write_wav(tmp_path / "microphone.wav", heard))
    context = browser.new_context(permissions=["microphone"])
    playground = Playground(new_page(context, faults), server.root_url, faults).open()
    playground.choose("WebRTC")
    playground.start()
    expect(playground.items.last).to_contain_text("do for your country", timeout=WAIT_MS)
    playground.stop()
    assert said(playground.text, clip["text"]), playground.text
    context.close()
    browser.close()

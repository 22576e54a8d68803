"""Speech to text on the page, over both transports: the microphone, recordings, commits by hand, the beta dialect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from browsing import TRANSPORTS, Playground, Transport, check_sessions, of, transcripts, write_wav
from clips import silence
from playwright.sync_api import Browser, expect
from wire import (
    ADDED,
    BEST_OF_TIMES,
    COMMITTED,
    DELTA,
    DONE,
    FIRST_WORDS,
    STARTED,
    STOPPED,
    UPDATED,
    best_of_times,
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
    playground.until_completed(2)
    playground.stop()
    assert said(playground.text, FIRST_WORDS), playground.text
    expect(playground.page.locator("#final")).to_contain_text("ms")

    [session] = check_sessions(playground.received())
    assert playground.texts == transcripts(session)
    for item_id in [event["item_id"] for event in of(session, COMMITTED)]:
        told = [event["type"] for event in session if event.get("item_id") == item_id or event.get("item", {}).get("id") == item_id]
        assert told[0] == STARTED
        assert [kind for kind in told if kind != DELTA][1:5] == [STOPPED, COMMITTED, ADDED, DONE]
        assert DELTA in told[: told.index(STOPPED)], "no word came while it was spoken"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_picked_file_is_transcribed_to_its_end(playground: Playground, recording: Path, transport: Transport) -> None:
    playground.choose(transport)
    playground.choose_file(recording)
    expect(playground.page.locator("#file-name")).to_have_text(recording.name)
    playground.start()
    playground.until("done")
    assert said(playground.text, BEST_OF_TIMES), playground.text
    check_sessions(playground.received())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_beta_is_spoken_where_it_is_chosen(playground: Playground, recording: Path, transport: Transport) -> None:
    playground.choose(transport)
    playground.choose("Beta")
    playground.choose_file(recording)
    playground.start()
    playground.until("done")
    assert said(playground.text, BEST_OF_TIMES), playground.text
    [session] = check_sessions(playground.received(), "beta")
    assert of(session, UPDATED["beta"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_commits_what_was_heard_where_turns_end_by_hand(
    playground: Playground, recording: Path, transport: Transport
) -> None:
    playground.choose(transport)
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
    playground.until_completed(1)
    playground.until("done")
    assert len(playground.texts) == 2
    assert said(playground.text, BEST_OF_TIMES), playground.text
    check_sessions(playground.received())


def test_sample_reads_to_you(playground: Playground) -> None:
    playground.choose("Sample")
    playground.start()
    playground.until_completed(1)
    playground.stop()
    assert "best of times" in playground.text
    check_sessions(playground.received())

"""The playground as a person uses it, in a real browser, for tests."""

from __future__ import annotations

import json
import re
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page, Request, Response, expect
from wire import COMPLETED, CREATED, DialectName, Event, check_event, check_order

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.audio.resample import Resampler

WAIT_MS = 60_000
"""How long something may take that surely comes."""
MICROPHONE_HZ = 48_000
"""The rate at which Chromium's fake microphone needs no resampling."""

Transport = Literal["WebSocket", "WebRTC"]
TRANSPORTS: list[Transport] = ["WebSocket", "WebRTC"]


def write_wav(path: Path, samples: Samples, rate_hz: int = MICROPHONE_HZ) -> Path:
    """A 16-bit mono WAV of float32 samples at 16 kHz."""
    resampler = Resampler(SAMPLE_RATE, rate_hz)
    resampled = np.concatenate([resampler.resample(samples), resampler.flush()])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(resampled, -1, 1) * 32_767).astype("<i2").tobytes())
    return path


@dataclass
class Faults:
    """What a page complains of: console, exceptions, requests that failed, content that its policy forbids."""

    seen: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    """Patterns of what a test provokes."""

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.seen.append(f"exception: {error}"))
        page.on("requestfailed", self._request_failed)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.seen.append(f"console: {message.text}")

    def _request_failed(self, request: Request) -> None:
        self.seen.append(f"request failed: {request.url} {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 400:
            self.seen.append(f"response: {response.status} {response.url}")

    @property
    def unexpected(self) -> list[str]:
        return [fault for fault in self.seen if not any(re.search(pattern, fault) for pattern in self.expected)]


class Playground:
    """The page, by what is written on it."""

    def __init__(self, page: Page, root_url: str, faults: Faults) -> None:
        self.page = page
        self.root_url = root_url
        self.faults = faults
        self.start_button = page.locator("#start")
        self.notice = page.locator("#notice")
        self.items = page.locator("#transcript > .item")
        page.set_default_timeout(WAIT_MS)

    def open(self) -> Playground:
        self.page.goto(self.root_url)
        # The last thing that the page asks for when it begins.
        expect(self.page.locator("#server")).to_contain_text("·", timeout=WAIT_MS)
        return self

    def choose(self, name: str) -> None:
        """Press one of the page's choices: a source, a transport, a dialect."""
        self.page.locator(".segments label").filter(has_text=re.compile(rf"^\s*{name}\s*$")).click()

    def choose_file(self, path: Path) -> None:
        """Take a recording as the source, and don't play it aloud."""
        self.choose("File")
        self.page.locator("#file").set_input_files(path)
        self.page.locator(".source-detail[data-source=file] .heard").uncheck()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=re.compile(name)).click()

    def setting(self, name: str) -> Locator:
        return self.page.locator(f"#setting-{name}")

    def set(self, name: str, value: str) -> None:
        """Change a setting and leave its field, as typing does."""
        field = self.setting(name)
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
            field.blur()

    def start(self) -> None:
        self.start_button.click()

    def until(self, *phases: str) -> None:
        """Wait for a phase of the run."""
        expect(self.page.locator("#state")).to_have_attribute(
            "data-phase", re.compile(f"^({'|'.join(phases)})$"), timeout=WAIT_MS
        )

    def until_completed(self, words: str) -> None:
        """Wait until an item with these words has its whole text."""
        item = self.page.locator("#transcript > .item[data-status=completed] .item-text").filter(has_text=words)
        expect(item.first).to_be_visible(timeout=WAIT_MS)

    def stop(self) -> None:
        """Stop, and wait for the last words."""
        self.start_button.click()
        self.until("done")

    @property
    def texts(self) -> list[str]:
        """What each item says; those without words are left out, such as a click before the speech."""
        return self.page.locator("#transcript .item-text:not(:has(.no-words))").all_inner_texts()

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def log(self) -> list[tuple[str, Event]]:
        """Directions and events, as "Copy as JSON lines" of the Events tab gives them."""
        chosen = self.page.locator("#panel-tabs [aria-selected=true]")
        chosen_id = chosen.get_attribute("id")
        self.tab("^Events")
        copy = self.page.locator("#event-copy")
        copy.click()
        expect(copy).to_have_attribute("data-copied", "yes")
        lines = self.page.evaluate("navigator.clipboard.readText()").splitlines()
        self.page.locator(f"#{chosen_id}").click()
        return [(entry["direction"], entry["event"]) for entry in map(json.loads, lines)]

    def received(self) -> list[Event]:
        return [event for direction, event in self.log() if direction == "received"]

    def sent(self) -> list[Event]:
        return [event for direction, event in self.log() if direction == "sent"]


def check_sessions(events: list[Event], dialect: DialectName = "ga") -> list[list[Event]]:
    """Fail unless received events are the protocol's to the letter, in its order. Returns those of each session."""
    sessions: list[list[Event]] = []
    for event in events:
        check_event(event, dialect)
        if event["type"] == CREATED[dialect]:
            sessions.append([])
        sessions[-1].append(event)
    for session in sessions:
        check_order(session, dialect)
    return sessions


def transcripts(events: list[Event]) -> list[str]:
    return [event["transcript"] for event in events if event["type"] == COMPLETED]


def new_page(context: BrowserContext, faults: Faults) -> Page:
    """A page that is watched."""
    page = context.new_page()
    faults.watch(page)
    return page


def of(events: list[Event], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]

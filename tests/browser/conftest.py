"""A Chromium for tests of the playground.

Playwright's synchronous interface keeps an event loop running in its thread while it is open, which tests written with
asyncio can't have: so a browser lives for one module of tests, and all that need one are in this folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Faults, Playground, new_page
from conftest import RunningServer
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, sync_playwright

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # CI runs as root
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
PERMISSIONS = ["microphone", "clipboard-read", "clipboard-write"]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def chromium_path(playwright: Playwright) -> str | None:
    """Where the system's Chromium is; None: Playwright's own is taken. Without either the tests skip, but not in CI."""
    for name in EXECUTABLES:
        if path := shutil.which(name):
            return path
    try:
        playwright.chromium.launch().close()
        return None
    except Error as error:
        told = error.message.splitlines()[0]
    reason = f"no browser: none of {', '.join(EXECUTABLES)} is installed, and Playwright says: {told}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def launch(playwright: Playwright, chromium_path: str | None) -> Iterator[Callable[..., Browser]]:
    """Starts Chromium without a window. Its microphone is allowed, and plays a WAV once, or gives beeps."""
    launched: list[Browser] = []

    def start(microphone: Path | None = None) -> Browser:
        heard = [f"--use-file-for-fake-audio-capture={microphone}%noloop"] if microphone else []
        launched.append(playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS, *heard]))
        return launched[-1]

    yield start
    for browser in launched:
        browser.close()


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Browser:
    """The browser of a module's tests."""
    return launch()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of the test's own."""
    fresh = browser.new_context(permissions=PERMISSIONS)
    yield fresh
    fresh.close()


@pytest.fixture
def faults() -> Iterator[Faults]:
    """What the test's pages complain of. Whatever the test did not expect fails it."""
    seen = Faults()
    yield seen
    assert seen.unexpected == []


@pytest.fixture
def page(context: BrowserContext, faults: Faults) -> Page:
    """An empty page."""
    return new_page(context, faults)


@pytest.fixture
def open_page(page: Page, faults: Faults) -> Callable[[RunningServer], Playground]:
    """Opens a server's playground."""
    return lambda server: Playground(page, server.root_url, faults).open()


@pytest.fixture
def playground(open_page: Callable[[RunningServer], Playground], server: RunningServer) -> Playground:
    """The playground of the server with default settings."""
    return open_page(server)

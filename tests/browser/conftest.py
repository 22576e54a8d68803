"""A Chromium for tests of the playground.

Playwright's synchronous interface keeps an event loop running in its thread while it is open, which tests written with
asyncio can't have: so a browser lives for one module of tests, and all that need one are in this folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def chromium_path() -> str:
    """Where the installed Chromium is. Without one the tests skip, but not in CI."""
    for name in EXECUTABLES:
        if path := shutil.which(name):
            return path
    reason = f"no browser: none of {', '.join(EXECUTABLES)} is installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def launch(chromium_path: str) -> Iterator[Callable[..., Browser]]:
    """Starts a Chromium without a window, with further flags. Its microphone is allowed, and gives beeps.

    `--use-file-for-fake-audio-capture=FILE%noloop` lets it give a WAV file instead, once for each time it is opened.
    """
    with sync_playwright() as playwright:
        started: list[Browser] = []

        def start(*flags: str) -> Browser:
            fakes = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
            arguments = ["--no-sandbox", *fakes, *flags]
            started.append(playwright.chromium.launch(executable_path=chromium_path, args=arguments))
            return started[-1]

        yield start
        for chromium in started:
            chromium.close()


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser]) -> Browser:
    """A Chromium that all tests of a module share."""
    return launch()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser profile of the test's own."""
    fresh = browser.new_context()
    yield fresh
    fresh.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """An empty page."""
    return context.new_page()

"""No serious finding of axe-core in any state, theme or width; with `--screenshots FOLDER` pictures of the states.

The pictures in `docs/` were made so: `scripts/test tests/browser/test_accessibility.py --screenshots docs`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import Playground, write_wav
from clips import silence
from conftest import RunningServer
from playwright.sync_api import Browser, Page, expect
from wire import opening, spoken

Theme = Literal["light", "dark"]
WIDE, PHONE = (1440, 900), (390, 844)
SETTLING_S = 3


@pytest.fixture(scope="module")
def browser(launch: Callable[..., Browser], tmp_path_factory: pytest.TempPathFactory) -> Browser:
    heard = np.concatenate([silence(SETTLING_S), spoken(opening(), 3)])
    return launch(write_wav(tmp_path_factory.mktemp("microphone") / "opening.wav", heard))


@pytest.fixture
def picture(page: Page, request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a picture of the page, if pictures were asked for."""
    folder: str | None = request.config.getoption("--screenshots")

    def take(name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"playground-{name}.png")

    return take


def look(page: Page, theme: Theme, size: tuple[int, int]) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.set_viewport_size({"width": size[0], "height": size[1]})


def check(page: Page, state: str) -> None:
    """Fail on a finding that keeps somebody out, in either theme and at either width."""
    for theme in ("light", "dark"):
        for size in (WIDE, PHONE):
            look(page, theme, size)
            violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            found = [
                (violation["id"], [node["html"] for node in violation["nodes"]])
                for violation in violations
                if violation["impact"] in ("serious", "critical")
            ]
            assert found == [], (state, theme, size)
            overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{state}: the page is wider than the screen by {overflow} px"


def test_idle_page_and_each_tab(playground: Playground, picture: Callable[[str], None]) -> None:
    page = playground.page
    check(page, "idle")
    look(page, "light", WIDE)
    picture("idle")
    for tab in ("Use it in your code", "Events"):
        playground.tab(tab)
        check(page, tab)
    playground.tab("Use it in your code")
    look(page, "light", WIDE)
    picture("code")


def test_page_that_listens_and_page_that_is_done(playground: Playground, picture: Callable[[str], None]) -> None:
    page = playground.page
    playground.choose("WebRTC")
    look(page, "light", WIDE)
    playground.start()
    playground.until_completed("foolishness")
    expect(playground.items.last).to_contain_text("epoch", timeout=60_000)
    picture("running")
    look(page, "dark", PHONE)
    picture("phone")
    check(page, "running")
    playground.until_completed("incredulity")
    playground.stop()
    playground.tab("^Events")
    check(page, "done")
    look(page, "dark", WIDE)
    page.locator("#event-list summary").first.click()
    picture("events")


def test_blocked_microphone(browser: Browser, playground: Playground, picture: Callable[[str], None]) -> None:
    playground.page.context.clear_permissions()
    playground.page.context.grant_permissions(["clipboard-read"])
    playground.start()
    playground.until("failed")
    check(playground.page, "denied")
    look(playground.page, "light", PHONE)
    picture("denied")


def test_dialog_for_the_key(
    server_with: Callable[..., RunningServer],
    open_page: Callable[[RunningServer], Playground],
    picture: Callable[[str], None],
) -> None:
    playground = open_page(server_with(AURICLE_API_KEYS="sk-of-this-test"))
    playground.faults.expected.append("401")
    playground.choose("Sample")
    playground.start()
    expect(playground.page.get_by_role("dialog")).to_be_visible()
    check(playground.page, "dialog")
    look(playground.page, "light", WIDE)
    picture("key")

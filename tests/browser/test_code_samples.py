"""The programs of "Use it in your code" do what they say when they are pasted and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import ALAW, PCM_24K, ULAW, silence, wire_bytes
from conftest import RunningServer
from playwright.sync_api import Browser
from wire import opening

SETTINGS: list[dict[str, Any]] = [
    {"dialect": "ga"},
    {"dialect": "beta", "turn_detection": "none"},
    {"dialect": "ga", "format": "audio/pcmu", "keywords": 'It\'s "wisdom"'},
    {"dialect": "beta", "format": "audio/pcma", "prompt": "Dickens' novel"},
]
FORMATS = {"audio/pcmu": ULAW, "audio/pcma": ALAW}

Sample = Callable[..., str]


@pytest.fixture(scope="module")
def sample(server: RunningServer, browser: Browser) -> Sample:
    """Gives the program of a language for settings, as the page does."""
    page = browser.new_page()
    page.goto(f"{server.root_url}/playground/icon.svg")

    def program(language: str, settings: dict[str, Any], transport: str = "websocket") -> str:
        place = {
            "origin": server.root_url,
            "wantsKey": False,
            "defaultModel": "gpt-4o-transcribe",
            "transport": transport,
        }
        source = """async ([language, settings, place]) => {
          const [{ SAMPLES }, { DEFAULTS }] = await Promise.all(
            ['code-samples', 'session-object'].map((name) => import(`/playground/${name}.js`)));
          return SAMPLES[language]({ ...DEFAULTS, ...settings }, place);
        }"""
        return page.evaluate(source, [language, settings, place])

    return program


def run_with_speech(command: list[str], folder: Path, settings: dict[str, Any]) -> str:
    """Run a program beside `speech.raw` in the settings' format. Returns what it prints, as bare words."""
    audio_format = FORMATS.get(settings.get("format", ""), PCM_24K)
    (folder / "speech.raw").write_bytes(wire_bytes(opening(), audio_format))
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return " ".join(re.sub(r"[^a-z ]", "", result.stdout.lower().replace("\n", " ")).split())


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_python_program_prints_what_is_said(sample: Sample, tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "program.py").write_text(sample("python", settings))
    words = run_with_speech([sys.executable, "-W", "ignore", "program.py"], tmp_path, settings)
    assert words.startswith("it was the best of times it was the worst of times")


def test_python_program_ends_where_no_text_is_wanted(sample: Sample, tmp_path: Path) -> None:
    settings = {"dialect": "ga", "model": "none"}
    (tmp_path / "program.py").write_text(sample("python", settings))
    assert run_with_speech([sys.executable, "program.py"], tmp_path, settings).startswith("item")


@pytest.fixture(scope="module")
def node() -> list[str]:
    """The command that runs Node with a WebSocket of its own: from 22 on, or from 20.10 on by a flag."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("Node is not installed")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = (int(part) for part in version.strip("v\n").split(".")[:2])
    if (major, minor) < (20, 10):
        pytest.skip(f"Node {version.strip()} has no WebSocket")
    return [path] if major >= 22 else [path, "--experimental-websocket"]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_node_program_prints_what_is_said(
    sample: Sample, node: list[str], tmp_path: Path, settings: dict[str, Any]
) -> None:
    (tmp_path / "transcribe.mjs").write_text(sample("javascript", settings))
    words = run_with_speech([*node, "transcribe.mjs"], tmp_path, settings)
    assert words.startswith("it was the best of times it was the worst of times")


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_curl_makes_a_key(sample: Sample, settings: dict[str, Any]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    result = subprocess.run(["sh", "-c", sample("curl", settings)], capture_output=True, text=True, check=True)
    answer = json.loads(result.stdout)
    assert (answer.get("value") or answer["client_secret"]["value"]).startswith("ek_")


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_browser_program_hears_the_microphone(
    server: RunningServer, sample: Sample, launch: Callable[..., Browser], tmp_path: Path, dialect: str
) -> None:
    spoken = tmp_path / "speech.wav"
    with wave.open(str(spoken), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(24_000)
        recording.writeframes(wire_bytes(np.concatenate([silence(1), opening(), silence(2)])))
    page = launch(spoken).new_page(permissions=["microphone"])
    page.goto(f"{server.root_url}/playground/icon.svg")
    program = sample("javascript", {"dialect": dialect}, "webrtc")
    # A click of the microphone's start may open a turn without words.
    with page.expect_console_message(lambda message: message.type == "log" and message.text, timeout=60_000) as first:
        page.evaluate("(program) => Object.getPrototypeOf(async () => {}).constructor(program)()", program)
    assert "the worst of times" in first.value.text.lower()

"""The example of an engine in a package of its own: built, installed, and used by a server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import RunningServer, start_server
from wire import COMPLETED, VAD, best_of_times, open_wire, spoken

PACKAGE = Path(__file__).resolve().parents[1] / "examples" / "engine_package"
MODEL = "redacted/no-times"
MODELS = json.dumps({MODEL: {"words": ["times", "best"]}})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed: its wheel, unpacked."""
    folder = tmp_path_factory.mktemp("package")
    source = shutil.copytree(PACKAGE, folder / "source")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[RunningServer]:
    running = start_server(AURICLE_MODELS=MODELS, PYTHONPATH=str(site))
    yield running
    running.stop()


def test_its_models_are_offered(server: RunningServer) -> None:
    assert MODEL in [model["id"] for model in httpx.get(f"{server.base_url}/models").json()["data"]]


def test_its_models_transcribe(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": MODEL}, turn_detection=VAD)
        wire.append(spoken(best_of_times()))
        assert wire.until(COMPLETED)[-1]["transcript"] == "It was the **** of *****, it was the worst of *****."
        wire.update(transcription={"model": "moonshine/tiny-en"})
        wire.append(spoken(best_of_times()))
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]


def models(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
    command = [sys.executable, "-m", "auricle", "models"]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False)


def test_the_command_line_lists_it(site: Path) -> None:
    listed = models(AURICLE_MODELS=MODELS, PYTHONPATH=str(site))
    assert MODEL in listed.stdout
    assert "redacted/" in listed.stdout.splitlines()[-1]


def test_its_settings_are_checked(site: Path) -> None:
    refused = models(AURICLE_MODELS=json.dumps({MODEL: {}}), PYTHONPATH=str(site))
    assert refused.returncode == 1
    assert refused.stderr.strip() == f"Error: models.{MODEL}.words: Field required"

"""Models as a resource of a running server: one that works besides the embedded one, and one that can't be had."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import RunningServer, start_server
from wire import COMPLETED, FAILED, best_of_times, open_wire

from auricle.engines.moonshine import embedded_folder

COPY, LOST = "moonshine/copy", "moonshine/lost"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    models = {COPY: {"path": str(embedded_folder())}, LOST: {"path": str(folder / "lost")}}
    running = start_server(AURICLE_MODELS=json.dumps(models), AURICLE_ALIASES=json.dumps({"mine": COPY}))
    yield running
    running.stop()


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, 16_000, 0, "NONE", ""))
        recording.writeframes((best_of_times() * 32767).astype("<i2").tobytes())
    return file.getvalue()


def post(server: RunningServer, model: str) -> httpx.Response:
    url = f"{server.base_url}/audio/transcriptions"
    return httpx.post(url, files={"file": ("a.wav", wav())}, data={"model": model}, timeout=60)


def test_all_models_and_aliases_are_listed(server: RunningServer) -> None:
    names = [model["id"] for model in httpx.get(f"{server.base_url}/models").json()["data"]]
    assert names == ["moonshine/tiny-en", COPY, LOST, "mine"]
    assert httpx.get(f"{server.base_url}/models/{COPY}").json()["id"] == COPY


@pytest.mark.parametrize("model", [COPY, "mine"])
def test_another_model_is_loaded_when_it_is_needed(server: RunningServer, model: str) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": model}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]
    assert "best of times" in post(server, model).json()["text"]


def test_weights_that_are_not_there_are_an_error_of_the_item_alone(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": LOST}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        error = wire.until(FAILED)[-1]["error"]
        assert (error["type"], error["code"]) == ("server_error", "transcription_error")
        assert LOST in error["message"]
        assert "no folder" in error["message"]
        wire.update(transcription={"model": "moonshine/tiny-en"})
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]


def test_weights_that_are_not_there_are_an_error_of_the_request(server: RunningServer) -> None:
    response = post(server, LOST)
    assert response.status_code == 500
    assert LOST in response.json()["error"]["message"]
    assert "best of times" in post(server, "moonshine/tiny-en").json()["text"]


def serve(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")} | variables
    command = [sys.executable, "-m", "auricle", "serve", "--port", "0"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_default_model_that_cannot_be_loaded_ends_the_start(tmp_path: Path) -> None:
    models = json.dumps({LOST: {"path": str(tmp_path / "lost")}})
    ended = serve(AURICLE_MODEL=LOST, AURICLE_MODELS=models)
    assert ended.returncode == 1
    assert "no folder" in ended.stderr.splitlines()[-1]
    assert ended.stderr.splitlines()[-1].startswith("Error: The model moonshine/lost")

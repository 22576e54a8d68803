"""Models as a resource of a running server: one that works besides the embedded one, and one that can't be had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny_whisper
from clips import sherpa_moonshine, silence, wav
from conftest import RunningServer, start_server
from tiny_whisper import LOUD, QUIET
from wire import COMPLETED, LOGPROBS, VAD, DialectName, best_of_times, open_wire, spoken

from auricle.engines.moonshine import embedded_folder

COPY, LOST = "moonshine/copy", "moonshine/lost"
MINI, UNFETCHED = "whisper/mini", "whisper/small"
SHERPA = "sherpa/moonshine"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    mini = str(tiny_whisper.build(folder / "mini"))
    models = {
        COPY: {"path": str(embedded_folder())},
        LOST: {"path": str(folder / "lost")},
        MINI: {"path": mini, "device": "cpu"},
        SHERPA: {"path": str(sherpa_moonshine(folder / "sherpa")), "kind": "moonshine_v2"},
    }
    aliases = json.dumps({"mine": COPY, "whisper-1": UNFETCHED})
    running = start_server(AURICLE_MODELS=json.dumps(models), AURICLE_ALIASES=aliases, HF_HOME=str(folder))
    yield running
    running.stop()


def post(server: RunningServer, model: str, gain: float = 1.0, **fields: str) -> httpx.Response:
    url = f"{server.base_url}/audio/transcriptions"
    file = ("a.wav", wav(np.clip(best_of_times() * gain, -1, 1)))
    return httpx.post(url, files={"file": file}, data={"model": model, **fields}, timeout=60)


def test_all_models_and_aliases_are_listed(server: RunningServer) -> None:
    names = [model["id"] for model in httpx.get(f"{server.base_url}/models").json()["data"]]
    assert names == ["moonshine/tiny-en", COPY, LOST, MINI, SHERPA, UNFETCHED, "mine", "whisper-1"]
    assert httpx.get(f"{server.base_url}/models/{COPY}").json()["id"] == COPY


@pytest.mark.parametrize("model", [COPY, "mine", SHERPA])
def test_another_model_is_loaded_when_it_is_needed(server: RunningServer, model: str) -> None:
    if model == SHERPA:
        pytest.importorskip("sherpa_onnx")
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": model}, turn_detection=None)
        wire.append(best_of_times())
        wire.commit()
        assert "best of times" in wire.until(COMPLETED)[-1]["transcript"]
    assert "best of times" in post(server, model).json()["text"]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_whisper_in_a_session(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        wire.update(transcription={"model": MINI, "delay": "minimal"}, turn_detection=VAD, include=[LOGPROBS])
        wire.append(spoken(best_of_times()))
        completed = wire.until(COMPLETED)[-1]
        assert completed["transcript"] == QUIET.strip()
        assert [entry["token"] for entry in completed["logprobs"]] == ["Hello", " to", " all", " of", " you", "."]
        assert completed["languages"] == [{"code": "en"}]
        wire.append(spoken(np.clip(best_of_times() * 1000, -1, 1)))
        completed = wire.until(COMPLETED)[-1]
        assert (completed["transcript"], completed["languages"]) == (LOUD.strip(), [{"code": "de"}])
        wire.update(turn_detection=None)
        wire.append(silence(1))
        wire.commit()
        assert "languages" not in wire.until(COMPLETED)[-1]  # there is no text


def test_whisper_for_a_recording(server: RunningServer) -> None:
    verbose = post(server, MINI, response_format="verbose_json").json()
    assert (verbose["text"], verbose["language"]) == (QUIET.strip(), "english")
    assert post(server, MINI, gain=1000.0).json()["text"] == LOUD.strip()
    assert post(server, MINI, gain=1000.0, response_format="verbose_json").json()["language"] == "german"
    asked = post(server, MINI, response_format="verbose_json", language="fr-CA").json()
    assert asked["language"] == "french"
    refused = post(server, MINI, language="xx")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "language")


@pytest.mark.parametrize("model", [LOST, UNFETCHED])
def test_weights_that_are_not_there_are_an_error_of_the_request(server: RunningServer, model: str) -> None:
    response = post(server, model)
    assert response.status_code == 500
    error = response.json()["error"]
    assert model in error["message"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "model_unavailable", "model")
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

"""`POST /v1/audio/translations`, with the official client and by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tiny_whisper
from clips import wav
from conftest import RunningServer, start_server
from openai import BadRequestError, OpenAI
from openai.types.audio import Translation, TranslationVerbose
from tiny_whisper import LOUD, TRANSLATED
from wire import best_of_times

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
"""OpenAI has announced the end of `whisper-1`, and with it of this route."""

MINI, ENGLISH, EMBEDDED = "whisper/mini", "whisper/english", "moonshine/tiny-en"
FAR = "upstream/far"
TEXT = TRANSLATED.strip()
RECORDING = ("a.wav", wav(np.clip(best_of_times() * 1000, -1, 1)))
"""Which the model takes for German."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    models = {
        MINI: {"path": str(tiny_whisper.build(folder / "mini")), "device": "cpu"},
        ENGLISH: {"path": str(tiny_whisper.build(folder / "english", is_multilingual=False)), "device": "cpu"},
        "whisper/turbo": {},
    }
    running = start_server(AURICLE_MODELS=json.dumps(models), AURICLE_ALIASES=json.dumps({"whisper-1": MINI}))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def post(server: RunningServer, **fields: str | list[str]) -> httpx.Response:
    return httpx.post(f"{server.base_url}/audio/translations", files={"file": RECORDING}, data=fields, timeout=60)


def test_the_official_client_gets_english_text_in_all_formats(client: OpenAI) -> None:
    answer = client.audio.translations.create(model="whisper-1", file=RECORDING)
    assert isinstance(answer, Translation)
    assert answer.text == TEXT
    verbose = client.audio.translations.create(
        model=MINI, file=RECORDING, response_format="verbose_json", prompt="", temperature=0.2
    )
    assert isinstance(verbose, TranslationVerbose)
    assert (verbose.text, verbose.language) == (TEXT, "english")
    assert float(verbose.duration) == pytest.approx(best_of_times().size / 16_000, abs=0.01)
    assert [segment.text for segment in verbose.segments or ()] == [TEXT]
    text = client.audio.translations.create(model=MINI, file=RECORDING, response_format="text")
    assert text == f"{TEXT}\n"
    srt = client.audio.translations.create(model=MINI, file=RECORDING, response_format="srt")
    assert TEXT in str(srt)
    assert "-->" in str(srt)
    vtt = client.audio.translations.create(model=MINI, file=RECORDING, response_format="vtt")
    assert str(vtt).startswith("WEBVTT")


def test_words_of_the_translation_have_times(server: RunningServer) -> None:
    body = post(server, model=MINI, response_format="verbose_json", **{"timestamp_granularities[]": "word"}).json()
    assert [word["word"] for word in body["words"]] == ["Good", "day"]
    assert body["task"] == "translate"


def test_the_same_model_still_transcribes(client: OpenAI) -> None:
    assert client.audio.transcriptions.create(model=MINI, file=RECORDING).text == LOUD.strip()


def test_what_is_spoken_can_be_told_and_is_not_what_is_answered(server: RunningServer) -> None:
    body = post(server, model=MINI, language="de", response_format="verbose_json").json()
    assert (body["task"], body["language"], body["text"]) == ("translate", "english", TEXT)


@pytest.mark.parametrize("model", [EMBEDDED, "", "whisper/turbo"])
def test_a_model_that_cannot_translate_is_refused_with_those_that_can(server: RunningServer, model: str) -> None:
    response = post(server, model=model)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_value", "model")
    assert f"'{model or EMBEDDED}' can't translate" in error["message"]
    assert MINI in error["message"]
    assert "turbo'" not in error["message"].partition("Supported")[2]


def test_a_folder_with_an_english_model_says_so(server: RunningServer) -> None:
    response = post(server, model=ENGLISH)
    assert response.status_code == 500
    assert f"{ENGLISH} knows English alone" in response.json()["error"]["message"]


def test_faults_are_told_as_for_transcriptions(server: RunningServer, client: OpenAI) -> None:
    url = f"{server.base_url}/audio/translations"
    assert httpx.post(url, files={"nothing": RECORDING}, data={"model": MINI}).json()["error"]["param"] == "file"
    assert post(server, model=MINI, response_format="docx").json()["error"]["param"] == "response_format"
    assert post(server, model=MINI, temperature="7").json()["error"]["param"] == "temperature"
    assert post(server, model="nobody").json()["error"]["param"] == "model"
    with pytest.raises(BadRequestError, match="can't translate"):
        client.audio.translations.create(model=EMBEDDED, file=RECORDING)


def test_a_server_without_such_a_model_says_so(server_with) -> None:  # type: ignore[no-untyped-def]
    error = post(server_with()).json()["error"]
    assert error["message"] == f"The model '{EMBEDDED}' can't translate. No other model of this server can."


def test_a_service_behind_it_translates(server: RunningServer, server_with) -> None:  # type: ignore[no-untyped-def]
    far = {FAR: {"base_url": server.base_url, "model": MINI, "translates": True}}
    near = server_with(AURICLE_MODELS=json.dumps(far))
    assert post(near, model=FAR, language="de").json()["text"] == TEXT

"""Other services as models, against a service that answers as it is told."""

from __future__ import annotations

import io
import json
import threading
import time
import wave
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines import upstream
from auricle.engines.base import Decode, EngineError, Hypothesis, Transcript, Transcription, Utterance
from auricle.engines.registry import catalog, load_engine
from auricle.engines.upstream import UpstreamModel, UpstreamSettings
from auricle.settings import Settings

KEY = "sk-upstream-secret"
OPTIONS = Transcription(model="upstream/theirs")
SPEECH = np.linspace(-0.5, 0.5, SAMPLE_RATE, dtype=np.float32)


class Service:
    """A service on a port of this machine, which gives the next of its answers to each call, and the last again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, dict[str, str]]] = [(200, {"text": "Hello there."}, {})]
        self.calls: list[dict[str, Any]] = []
        """The form of each call, and its headers."""
        self.together = threading.Barrier(1)
        """How many calls must be there before any is answered."""
        self._turn = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                service._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"]))
        form: dict[str, Any] = {"path": request.path, "authorization": request.headers["authorization"]}
        head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
        parsed: Message = BytesParser().parsebytes(head + body)
        for part in parsed.get_payload():  # type: ignore[union-attr]
            name = part.get_param("name", header="content-disposition")  # type: ignore[union-attr]
            payload = part.get_payload(decode=True)  # type: ignore[union-attr]
            form[name] = payload if name == "file" else payload.decode()
        with self._turn:
            self.calls.append(form)
            status, answer, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.together.wait(20)
        if answer == "hang":
            time.sleep(2)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        request.send_response(status)
        for name, value in {**headers, "content-length": str(len(text))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(text.encode())


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_FIRST_WAIT_S", 0.01)


def model(service: Service, calls: int = 4, **settings: object) -> UpstreamModel:
    values = {"base_url": service.base_url, "api_key": KEY} | settings
    return UpstreamModel("upstream/theirs", "theirs", UpstreamSettings.model_validate(values), calls)


def ask(service: Service, options: Transcription = OPTIONS, **settings: object) -> Transcript | EngineError:
    return model(service, **settings).transcribe([Utterance(SPEECH, options)])[0]


def failure(service: Service, **settings: object) -> str:
    result = ask(service, **settings)
    assert isinstance(result, EngineError)
    assert KEY not in str(result)
    return str(result)


def text_of(result: Transcript | EngineError) -> str:
    assert isinstance(result, Transcript), result
    return "".join(token.text for token in result.tokens)


def samples_of(wav: bytes) -> Samples:
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32768)


def test_a_call_has_the_audio_and_the_settings(service: Service) -> None:
    options = OPTIONS.model_copy(update={"language": "de-AT", "prompt": "A novel.", "keywords": ["Auricle", "Ritz"]})
    result = ask(service, options, model="gpt-4o-transcribe")
    assert text_of(result) == " Hello there."
    assert isinstance(result, Transcript)
    assert result.language == "de"
    (call,) = service.calls
    np.testing.assert_allclose(samples_of(call.pop("file")), SPEECH, atol=1e-4)
    assert call == {
        "path": "/v1/audio/transcriptions",
        "authorization": f"Bearer {KEY}",
        "model": "gpt-4o-transcribe",
        "response_format": "json",
        "language": "de",
        "prompt": "A novel. Auricle, Ritz",
    }


def test_a_call_without_settings_has_none(service: Service) -> None:
    ask(service, api_key=None)
    (call,) = service.calls
    assert set(call) == {"path", "authorization", "model", "response_format", "file"}
    assert (call["authorization"], call["model"]) == (None, "theirs")


def test_probabilities_are_asked_for_where_they_are_known(service: Service) -> None:
    logprobs = [{"token": "Hel", "logprob": -0.1, "bytes": []}, {"token": "lo.", "logprob": -0.2, "bytes": []}]
    service.answers = [(200, {"text": "Hello.", "logprobs": logprobs}, {})]
    result = ask(service, logprobs=True)
    assert isinstance(result, Transcript)
    assert [(token.text, token.logprob) for token in result.tokens] == [("Hel", -0.1), ("lo.", -0.2)]
    assert service.calls[0]["include[]"] == "logprobs"
    service.answers = [(200, {"text": "Hello.", "logprobs": ["what"]}, {})]
    assert text_of(ask(service, logprobs=True)) == " Hello."


WORDS = [
    {"word": "Well", "start": 0.25, "end": 0.5},
    {"word": "known", "start": 0.5, "end": 0.75},
    {"word": "it’s", "start": 0.75, "end": 9.0},
]


def test_times_of_words_are_asked_for_where_they_are_known(service: Service) -> None:
    """The service writes its words in its own way, and one of them lasts longer than the audio."""
    service.answers = [(200, {"text": "Well-known – it’s.", "words": WORDS}, {})]
    result = ask(service, word_times=True)
    assert isinstance(result, Transcript)
    assert [(token.text, token.span) for token in result.tokens] == [
        (" Well-known", (4_000, 12_000)),
        (" –", (12_000, 12_000)),
        (" it’s.", (12_000, SPEECH.size)),
    ]
    (call,) = service.calls
    assert (call["response_format"], call["timestamp_granularities[]"]) == ("verbose_json", "word")


@pytest.mark.parametrize("words", [None, [], WORDS[:2], ["Well-known", "it's"], [{"word": "Well-known its"}], 3])
def test_times_that_do_not_fit_the_text_are_none(service: Service, words: object) -> None:
    service.answers = [(200, {"text": "Well-known it's.", "words": words}, {})]
    result = ask(service, word_times=True)
    assert isinstance(result, Transcript)
    assert [(token.text, token.span) for token in result.tokens] == [(" Well-known", None), (" it's.", None)]


def test_probabilities_and_times_are_not_to_be_had_together() -> None:
    with pytest.raises(
        ValueError, match=r"models\.upstream/x: `logprobs` and `word_times` can't be asked for together"
    ):
        catalog(Settings(models={"upstream/x": {"base_url": "http://a/v1", "logprobs": True, "word_times": True}}))


def test_no_audio_costs_no_call(service: Service) -> None:
    assert model(service).transcribe([Utterance(np.zeros(0, np.float32), OPTIONS)]) == [Transcript(())]
    assert service.calls == []


def test_the_calls_of_a_batch_go_out_together(service: Service) -> None:
    service.together = threading.Barrier(4)  # none is answered before all are there
    results = model(service, calls=4).transcribe([Utterance(SPEECH, OPTIONS)] * 4)
    assert [text_of(result) for result in results] == [" Hello there."] * 4


def test_one_failure_is_that_of_its_utterance(service: Service) -> None:
    bad = (400, {"error": {"message": "Too short."}}, {})
    good = (200, {"text": "Hello."}, {})
    service.answers = [good, bad, good]
    results = model(service, calls=1).transcribe([Utterance(SPEECH, OPTIONS)] * 3)
    assert [isinstance(result, EngineError) for result in results] == [False, True, False]
    service.answers = [good, bad, good]
    spec = catalog(Settings(models={"upstream/theirs": {"base_url": service.base_url, "max_batch": 1}})).specs
    engine = load_engine(spec["upstream/theirs"], 1)
    jobs = [Decode(f"item_{number}", OPTIONS, SPEECH) for number in range(3)]
    outcomes = engine.decode(jobs)
    assert [type(outcome) for outcome in outcomes] == [Hypothesis, EngineError, Hypothesis]
    assert isinstance(engine.decode([jobs[1]])[0], Hypothesis)  # tried again, it works


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(service: Service, status: int) -> None:
    service.answers = [(status, {}, {}), (status, "", {}), (200, {"text": "Hello."}, {})]
    assert text_of(ask(service)) == " Hello."
    assert len(service.calls) == 3


def test_retries_have_an_end(service: Service) -> None:
    service.answers = [(503, {"error": {"message": "Overloaded."}}, {})]
    assert failure(service) == "The service behind upstream/theirs answers 503: Overloaded."
    assert len(service.calls) == 3
    failure(service, max_retries=0)
    assert len(service.calls) == 4


def test_the_service_says_how_long_to_wait(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(upstream.time, "sleep", waits.append)
    service.answers = [(429, {}, {"retry-after": "3"}), (429, {}, {"retry-after": "soon"}), (200, {"text": "Hi."}, {})]
    assert text_of(ask(service)) == " Hi."
    assert waits[0] == 3
    assert 0 < waits[1] <= 0.02


def test_a_wait_beyond_the_time_limit_is_not_begun(service: Service) -> None:
    service.answers = [(429, {"error": {"message": "Slow down"}}, {"retry-after": "3600"})]
    assert "answers 429: Slow down" in failure(service)
    assert len(service.calls) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, {"error": {"message": f"Incorrect key {KEY}"}}, {}), r"refuses our key (401)"),
        ((400, {"error": {"message": "Bad audio."}}, {}), "answers 400: Bad audio."),
        ((404, "nothing", {}), "answers 404: Not Found."),
        ((400, {"error": "odd"}, {}), "answers 400: Bad Request."),
        ((200, "no json", {}), "answers with something else than a transcription."),
        ((200, {"words": []}, {}), "answers with something else than a transcription."),
        ((200, ["text"], {}), "answers with something else than a transcription."),
    ],
)
def test_what_cannot_pass_is_told_at_once(service: Service, answer: tuple, told: str) -> None:
    service.answers = [answer]
    assert told in failure(service)
    assert len(service.calls) == 1


def test_a_long_complaint_is_cut(service: Service) -> None:
    service.answers = [(400, {"error": {"message": "x" * 10_000}}, {})]
    assert len(failure(service)) < 500


def test_a_service_that_hangs_is_given_up(service: Service) -> None:
    service.answers = [(200, "hang", {})]
    assert "can't be reached (ReadTimeout)" in failure(service, timeout_s=0.2)
    assert len(service.calls) == 1


def test_a_service_that_is_not_there_is_told(service: Service) -> None:
    result = ask(service, base_url="http://127.0.0.1:9/v1")
    assert isinstance(result, EngineError)
    assert "can't be reached (ConnectError)" in str(result)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "base_url: Field required"),
        ({"base_url": "nonsense"}, "base_url: "),
        ({"base_url": "http://x/v1", "timeout_s": 0}, "timeout_s: "),
        ({"base_url": "http://x/v1", "api_key": [KEY]}, "api_key: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict, told: str) -> None:
    with pytest.raises(ValueError, match=f"models.upstream/x.{told}") as caught:
        catalog(Settings(models={"upstream/x": values}))
    assert KEY not in str(caught.value)


def test_the_key_is_not_shown() -> None:
    settings = {"base_url": "http://x/v1", "api_key": KEY}
    models = catalog(Settings(models={"upstream/x": settings}))
    assert KEY not in repr(models)
    assert KEY not in repr(models.specs)
    assert models.directory.find("upstream/x").languages == ()

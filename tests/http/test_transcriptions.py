"""`POST /v1/audio/transcriptions`, with the official client and by hand, on the real model."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import av
import httpx
import numpy as np
import openai
import psutil
import pytest
from clips import silence, two_cities
from conftest import RunningServer
from openai import OpenAI
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent
from words import said

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.bench.corpus import TWO_CITIES

MODEL = "moonshine/tiny-en"


def wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def encoded(samples: Samples, container: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", container) as output:
        stream = output.add_stream(codec, 48_000)
        resampler = av.AudioResampler(stream.codec_context.format, stream.layout, 48_000)
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = SAMPLE_RATE
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(resampled))
        output.mux(stream.encode(None))
    return file.getvalue()


SPEECH = two_cities()
FILE = ("speech.wav", wav(SPEECH))
SHORT_SPEECH = SPEECH[: round(8.5 * SAMPLE_RATE)]
SHORT = ("short.wav", wav(SHORT_SPEECH))
SHORT_WORDS = TWO_CITIES[: TWO_CITIES.index(", it was the epoch")]


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


def post(server: RunningServer, file: bytes = SHORT[1], **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{server.base_url}/audio/transcriptions", files={"file": ("audio", file)}, data=fields, timeout=60
    )


def fault(response: httpx.Response, status: int = 400) -> tuple[str | None, str | None]:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error["code"], error["param"]


# With the official client


def test_json_has_the_text_and_what_it_cost(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(model="gpt-4o-transcribe", file=FILE)
    assert said(answer.text, TWO_CITIES)
    assert answer.usage is not None
    assert answer.usage.type == "tokens"
    assert answer.usage.input_token_details is not None
    assert answer.usage.input_token_details.audio_tokens == 444
    assert answer.usage.output_tokens > 100
    assert answer.logprobs is None
    duration = client.audio.transcriptions.create(model="whisper-1", file=SHORT).usage
    assert duration is not None
    assert (duration.type, duration.seconds) == ("duration", 9)


def test_log_probabilities_are_of_the_pieces_of_the_text(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(model=MODEL, file=SHORT, include=["logprobs"])
    assert answer.logprobs
    assert "".join(entry.token or "" for entry in answer.logprobs) == answer.text
    assert all((entry.logprob or 0) <= 0 for entry in answer.logprobs)
    assert bytes(int(byte) for entry in answer.logprobs for byte in entry.bytes or ()).decode() == answer.text


def test_verbose_json_has_segments_where_the_speech_is(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=FILE, response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert said(answer.text, TWO_CITIES)
    assert (answer.language, answer.usage and answer.usage.seconds) == ("english", 45)
    assert float(answer.duration) == pytest.approx(SPEECH.size / SAMPLE_RATE, abs=0.01)
    assert answer.segments
    assert " ".join(segment.text for segment in answer.segments) == answer.text
    assert [segment.id for segment in answer.segments] == list(range(len(answer.segments)))
    times = [time for segment in answer.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    for segment in answer.segments:
        inside = SPEECH[round(segment.start * SAMPLE_RATE) : round(segment.end * SAMPLE_RATE)]
        assert np.abs(inside[:1600]).max() > 0.01  # it is no silence that a segment begins or ends with
        assert np.abs(inside[-1600:]).max() > 0.01
        assert -1 < segment.avg_logprob <= 0
        assert segment.compression_ratio > 0


def test_plain_text(client: OpenAI) -> None:
    text = client.audio.transcriptions.create(model=MODEL, file=SHORT, response_format="text")
    assert said(text, SHORT_WORDS)
    assert text.endswith(".\n")


@pytest.mark.parametrize(("name", "point"), [("srt", ","), ("vtt", r"\.")])
def test_subtitles(client: OpenAI, name: str, point: str) -> None:
    subtitles = client.audio.transcriptions.create(model=MODEL, file=FILE, response_format=name)  # type: ignore[call-overload]
    assert isinstance(subtitles, str)
    clock = rf"\d\d:\d\d:\d\d{point}\d\d\d"
    cues = re.findall(rf"^({clock}) --> ({clock})\n((?:.+\n)+)", subtitles, re.MULTILINE)
    assert len(cues) > 8
    assert [start for start, _, _ in cues] == sorted(start for start, _, _ in cues)
    assert all(start < end for start, end, _ in cues)
    assert max(len(line) for _, _, text in cues for line in text.splitlines()) <= 42
    assert said(" ".join(text for _, _, text in cues), TWO_CITIES)
    assert subtitles.startswith("1\n" if name == "srt" else "WEBVTT\n\n")


def test_a_stream_says_the_text_in_pieces_that_join(client: OpenAI) -> None:
    events = list(client.audio.transcriptions.create(model="gpt-4o-transcribe", file=FILE, stream=True))
    *deltas, done = events
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert said(done.text, TWO_CITIES)
    assert done.usage is not None
    assert done.usage.output_tokens > 100
    assert len(deltas) > 3
    assert all(isinstance(delta, TranscriptionTextDeltaEvent) for delta in deltas)
    assert "".join(delta.delta for delta in deltas if isinstance(delta, TranscriptionTextDeltaEvent)) == done.text


def test_a_stream_may_have_log_probabilities(client: OpenAI) -> None:
    *deltas, done = client.audio.transcriptions.create(model=MODEL, file=SHORT, stream=True, include=["logprobs"])
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert "".join(entry.token or "" for entry in done.logprobs or ()) == done.text
    assert sum(len(delta.logprobs or ()) for delta in deltas if isinstance(delta, TranscriptionTextDeltaEvent)) == len(
        done.logprobs or ()
    )


def test_settings_of_turn_detection_cut_the_segments(client: OpenAI) -> None:
    def count(**settings: Any) -> int:
        answer = client.audio.transcriptions.create(
            model=MODEL, file=FILE, response_format="verbose_json", chunking_strategy=settings or "auto"
        )
        return len(answer.segments or ())

    assert count(type="server_vad", silence_duration_ms=3000) <= count() < count(type="server_vad")


def test_hints_reach_the_engine(client: OpenAI) -> None:
    plain = client.audio.transcriptions.create(model=MODEL, file=SHORT, language="en", prompt="A novel.")
    assert said(plain.text, SHORT_WORDS)
    hinted = client.audio.transcriptions.create(model=MODEL, file=SHORT, languages=["de", "en"], keywords=["wisdom"])
    assert said(hinted.text, SHORT_WORDS)


# By hand


@pytest.mark.parametrize(
    ("container", "codec"), [("mp3", "libmp3lame"), ("webm", "libopus"), ("flac", "flac"), ("mp4", "aac")]
)
def test_any_container_is_read(server: RunningServer, container: str, codec: str) -> None:
    answer = post(server, encoded(SHORT_SPEECH, container, codec), model=MODEL)
    assert said(answer.json()["text"], SHORT_WORDS)


def test_a_recording_without_speech_has_an_empty_text(server: RunningServer) -> None:
    assert post(server, wav(silence(3))).json()["text"] == ""
    assert post(server, wav(silence(3)), response_format="verbose_json").json()["segments"] == []
    assert post(server, wav(silence(3)), response_format="vtt").text == "WEBVTT\n"
    stream = post(server, wav(silence(3)), stream="true").text
    assert [json.loads(line.removeprefix("data: "))["type"] for line in stream.split("\n\n") if line] == [
        "transcript.text.done"
    ]


def test_the_types_of_the_answers(server: RunningServer) -> None:
    for name, content_type in [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("srt", "text/plain; charset=utf-8"),
        ("vtt", "text/vtt; charset=utf-8"),
    ]:
        assert post(server, response_format=name).headers["content-type"] == content_type
    assert post(server, stream="true").headers["content-type"].startswith("text/event-stream")


def test_empty_and_unknown_fields_do_no_harm(server: RunningServer) -> None:
    answer = post(server, model="", language="", prompt="", temperature="0", user="somebody", vad_filter="true")
    assert said(answer.json()["text"], SHORT_WORDS)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "nope"}, "invalid_value", "model"),
        ({"language": "xx"}, "invalid_value", "language"),
        ({"languages[]": ["xx"]}, "invalid_value", "languages"),
        ({"response_format": "diarized_json"}, "invalid_value", "response_format"),
        ({"temperature": "2"}, "decimal_above_max_value", "temperature"),
        ({"temperature": "warm"}, "invalid_value", "temperature"),
        ({"stream": "perhaps"}, "invalid_value", "stream"),
        ({"stream": "true", "response_format": "srt"}, "invalid_value", "stream"),
        ({"include[]": ["logprobs"], "response_format": "text"}, "invalid_value", "include"),
        ({"include": "words"}, "invalid_value", "include[0]"),
        ({"timestamp_granularities[]": ["segment"]}, "invalid_value", "timestamp_granularities"),
        (
            {"timestamp_granularities[]": ["letter"], "response_format": "verbose_json"},
            "invalid_value",
            "timestamp_granularities[0]",
        ),
        ({"chunking_strategy": "never"}, "invalid_type", "chunking_strategy"),
        ({"chunking_strategy[type]": "semantic_vad"}, "invalid_value", "chunking_strategy.type"),
        (
            {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "2"},
            "decimal_above_max_value",
            "chunking_strategy.threshold",
        ),
        ({"chunking_strategy": '{"type":"server_vad","nothing":1}'}, "unknown_parameter", "chunking_strategy.nothing"),
        ({"keywords[]": ["<b>"]}, "invalid_value", "keywords[0]"),
        ({"prompt": "x" * 40_000}, "string_above_max_length", "prompt"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(server: RunningServer, fields: dict[str, Any], code: str, param: str) -> None:
    assert fault(post(server, **fields)) == (code, param)


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize(
    "file",
    [b"", b"Not audio.\n" * 500, FILE[1][:40], bytes(range(256)) * 100],
    ids=["empty", "text", "half a header", "bytes"],
)
def test_a_file_that_is_no_audio_is_refused(server: RunningServer, file: bytes, stream: str) -> None:
    assert fault(post(server, file, stream=stream)) == ("invalid_value", "file")


def test_what_is_no_form_is_refused(server: RunningServer) -> None:
    url = f"{server.base_url}/audio/transcriptions"
    assert fault(httpx.post(url, json={"model": MODEL})) == ("invalid_content_type", None)
    assert fault(httpx.post(url, content=b"x", headers={"Content-Type": "multipart/form-data"})) == (
        "invalid_form",
        None,
    )
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    assert fault(httpx.post(url, content=b"nothing", headers=form)) == ("invalid_form", None)
    assert fault(httpx.post(url, files={"audio": SHORT})) == ("missing_required_parameter", "file")
    assert fault(httpx.post(url, files={"file": (None, b"text")})) == ("missing_required_parameter", "file")


def test_text_fields_are_small_and_few(server: RunningServer) -> None:
    assert fault(post(server, prompt="x" * 200_000)) == ("invalid_form", None)
    assert fault(post(server, **{"user[]": ["x"] * 600})) == ("invalid_form", None)
    shouted = httpx.post(
        f"{server.base_url}/audio/transcriptions",
        content=b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nnope\r\n--x--\r\n',
        headers={"Content-Type": "Multipart/Form-Data; boundary=x"},
    )
    assert fault(shouted) == ("missing_required_parameter", "file")


def test_a_client_that_leaves_in_the_middle_of_its_upload_is_no_error_of_ours(
    server_with: Callable[..., RunningServer],
) -> None:
    server = server_with()
    port = int(server.root_url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        time.sleep(0.2)
    assert said(post(server).json()["text"], SHORT_WORDS)
    assert not any("Traceback" in line for line in server.output)


def test_a_key_is_wanted_where_keys_are_set(server_with: Callable[..., RunningServer]) -> None:
    server = server_with("--api-keys", "sk-test-files")
    assert fault(post(server), 401) == (None, None)
    with OpenAI(base_url=server.base_url, api_key="sk-test-files") as client:
        assert said(client.audio.transcriptions.create(model=MODEL, file=SHORT).text, SHORT_WORDS)


# Limits and failures


def test_limits_of_a_recording(server_with: Callable[..., RunningServer]) -> None:
    server = server_with(AURICLE_MAX_FILE_BYTES="1000000", AURICLE_MAX_FILE_S="10", AURICLE_FILE_PROCESSES="1")
    assert fault(post(server, FILE[1]), 413) == (None, None)
    quiet = encoded(silence(40), "flac", "flac")
    assert len(quiet) < 1_000_000
    assert fault(post(server, quiet)) == ("invalid_value", "file")
    assert said(post(server).json()["text"], SHORT_WORDS)  # it goes on


def recording_processes(server: RunningServer) -> list[psutil.Process]:
    """The processes that transcribe recordings: of the server's children, those of lowest priority."""
    return [child for child in psutil.Process(server.process.pid).children(recursive=True) if child.nice() == 19]


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@contextmanager
def being_transcribed(server: RunningServer) -> Iterator[None]:
    """A long recording is in work, until its process is killed."""
    before = {process.pid: process.cpu_times().user for process in recording_processes(server)}

    def post_it() -> None:
        with suppress(httpx.HTTPError):
            client.post(f"{server.base_url}/audio/transcriptions", files={"file": ("long.wav", LONG)}, timeout=60)

    with httpx.Client() as client:
        thread = threading.Thread(target=post_it)
        thread.start()
        until(
            lambda: any(
                process.cpu_times().user > before.get(process.pid, 0) + 0.2 for process in recording_processes(server)
            )
        )
        yield
        for process in recording_processes(server):
            process.kill()
        thread.join()


LONG = wav(np.tile(SPEECH, 12))
"""9 minutes: long enough to be in the middle of it."""


def test_more_recordings_than_may_wait_are_told_to_come_back(server_with: Callable[..., RunningServer]) -> None:
    server = server_with(AURICLE_FILE_PROCESSES="1", AURICLE_MAX_WAITING_FILES="0")
    assert said(post(server).json()["text"], SHORT_WORDS)  # nobody waits
    with being_transcribed(server):
        refused = post(server)
        assert fault(refused, 503) == ("server_overloaded", None)
        assert refused.headers["Retry-After"]
    until(lambda: post(server).status_code == 200)


def test_a_process_that_dies_costs_one_answer(server_with: Callable[..., RunningServer]) -> None:
    server = server_with(AURICLE_FILE_PROCESSES="1")
    assert recording_processes(server) == []  # started only when needed
    post(server)
    (process,) = recording_processes(server)
    with httpx.stream(
        "POST",
        f"{server.base_url}/audio/transcriptions",
        files={"file": ("long.wav", LONG)},
        data={"stream": "true"},
        timeout=60,
    ) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["type"] == "transcript.text.delta"
        process.kill()
        *_, last = (line for line in lines if line)
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert said(post(server).json()["text"], SHORT_WORDS)


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_client_that_leaves_frees_its_process(server_with: Callable[..., RunningServer], stream: str) -> None:
    server = server_with(AURICLE_FILE_PROCESSES="1")
    post(server)
    (process,) = recording_processes(server)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.base_url}/audio/transcriptions",
            files={"file": ("long.wav", LONG)},
            data={"stream": stream},
            timeout=httpx.Timeout(30, read=0.3),
        )
    until(lambda: not process.is_running())
    assert said(post(server).json()["text"], SHORT_WORDS)


def test_the_openai_client_sees_failures_as_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not audio"):
        client.audio.transcriptions.create(model=MODEL, file=("notes.txt", b"Not audio.\n" * 500))
    with pytest.raises(openai.BadRequestError, match="nope"):
        client.audio.transcriptions.create(model="nope", file=SHORT)

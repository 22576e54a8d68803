"""When words were said, over the socket, for recordings, and on the command line, on the real model."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tiny_transducer
import tiny_whisper
from clips import shared_audio, shared_clips, sherpa_moonshine, silence, two_cities
from conftest import RunningServer, start_server
from openai import OpenAI
from tiny_whisper import QUIET
from wire import (
    COMMITTED,
    COMPLETED,
    LOGPROBS,
    MODEL,
    STARTED,
    STOPPED,
    VAD,
    WORDS,
    DialectName,
    Event,
    Wire,
    best_of_times,
    open_wire,
    opening,
    spoken,
)

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.moonshine import embedded_folder

SILENT, COPY, MINI, SHERPA = "moonshine/silent", "moonshine/copy", "whisper/mini", "sherpa/moonshine"
TINY = "sherpa/tiny"
SPEECH_S = (1.20, 41.65)
"""Where the first word begins and the last ends in the clip of the model's wheel, as one hears it."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models that know when words are said, and models that don't."""
    folder = tmp_path_factory.mktemp("models")
    path = str(embedded_folder())
    models = {
        SILENT: {"path": path},
        COPY: {"path": path, "alignment_heads": [[1, 0], [1, 3]]},
        MINI: {"path": str(tiny_whisper.build(folder / "mini")), "device": "cpu"},
        SHERPA: {"path": str(sherpa_moonshine(folder / "sherpa")), "kind": "moonshine_v2"},
    }
    running = start_server(AURICLE_MODELS=json.dumps(models))
    yield running
    running.stop()


def wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def letters(text: str) -> str:
    return re.sub(r"\W", "", text).lower()


def check_words(completed: Event, start_s: float, end_s: float) -> list[Event]:
    """Fail unless the words are the transcript's, in their order, each within the item. Returns them."""
    words: list[Event] = completed["words"]
    assert "".join(word["word"] for word in words).replace(" ", "") == completed["transcript"].replace(" ", "")
    assert all(word["word"] == word["word"].strip() for word in words)
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert all(start_s <= time <= end_s for time in times), (start_s, end_s, times)
    return words


def check_turns(wire: Wire) -> list[list[Event]]:
    """Fail unless all items of a session with turn detection have the words of their text. Returns those of each."""
    starts = {event["item_id"]: event["audio_start_ms"] for event in wire.events if event["type"] == STARTED}
    ends = {event["item_id"]: event["audio_end_ms"] for event in wire.events if event["type"] == STOPPED}
    completed = [event for event in wire.events if event["type"] == COMPLETED]
    return [check_words(event, starts[event["item_id"]] / 1000, ends[event["item_id"]] / 1000) for event in completed]


def turns(wire: Wire, samples: Samples, count: int) -> list[list[Event]]:
    """Speak, and wait for so many more items."""
    seen = sum(event["type"] == COMPLETED for event in wire.events)
    wire.append(spoken(samples))
    while sum(event["type"] == COMPLETED for event in wire.events) < seen + count:
        wire.until(COMPLETED)
    return check_turns(wire)[seen:]


# Sessions


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_words_have_their_times_where_they_are_included(server: RunningServer, dialect: DialectName) -> None:
    with open_wire(server.socket_url, dialect) as wire:
        session = wire.update(transcription=MODEL, turn_detection=VAD, include=[WORDS])
        assert session["include"] == [WORDS]
        (words,) = turns(wire, best_of_times(), 1)
        assert [letters(word["word"]) for word in words[:6]] == ["it", "was", "the", "best", "of", "times"]
        assert set(words[0]) == {"word", "start", "end"}
        assert "logprobs" not in wire.events[-1]
        assert words[0]["start"] == pytest.approx(SPEECH_S[0], abs=0.15)
        wire.update(include=[WORDS, LOGPROBS])
        (words,) = turns(wire, best_of_times(), 1)
        tokens = wire.events[-1]["logprobs"]
        assert sum(word["logprob"] for word in words) == pytest.approx(sum(token["logprob"] for token in tokens))
        wire.update(include=None)
        wire.append(spoken(best_of_times()))
        assert "words" not in wire.until(COMPLETED)[-1]


def test_the_clock_is_the_sessions_and_earlier_speech_that_is_heard_again_counts_for_nothing(
    server: RunningServer,
) -> None:
    """A turn after two minutes, and one right after another, which the model hears again before it."""
    sentence = best_of_times()
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD, include=[WORDS])
        (first,) = turns(wire, sentence, 1)
        wire.append(silence(120))
        (late,) = turns(wire, sentence, 1)
        (next_,) = turns(wire, sentence, 1)
    length_s = sentence.size / SAMPLE_RATE + 1
    for words, begin_s in ((first, 0.0), (late, length_s + 120), (next_, 2 * length_s + 120)):
        assert [letters(word["word"]) for word in words] == [letters(word["word"]) for word in first]
        starts = [word["start"] - begin_s for word in words]
        assert starts == pytest.approx([word["start"] for word in first], abs=0.15)


def test_an_item_of_several_stretches_has_the_words_of_all(server: RunningServer) -> None:
    pieces = [two_cities()[: 13 * SAMPLE_RATE], silence(2), best_of_times()]
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None, include=[WORDS])
        wire.append(silence(1))
        wire.commit()
        assert wire.until(COMPLETED)[-1]["words"] == []
        wire.append(np.concatenate(pieces))
        wire.commit()
        total_s = 1 + sum(piece.size for piece in pieces) / SAMPLE_RATE
        words = check_words(wire.until(COMPLETED)[-1], 1.0, total_s)
    gaps = [(one["end"], other["start"]) for one, other in pairwise(words) if other["start"] - one["end"] > 2]
    assert len(gaps) == 1
    assert gaps[0][0] < 1 + 13 + 0.1 < 1 + 15 < gaps[0][1] < 1 + 15 + SPEECH_S[0] + 0.2


def test_many_sessions_at_once_have_the_words_that_each_has_alone(server: RunningServer) -> None:
    parts = [opening()[: 5 * SAMPLE_RATE], opening()[6 * SAMPLE_RATE :], best_of_times()]

    def words_of(wire: Wire) -> list[Event]:
        wire.until(COMPLETED)
        found: list[Event] = wire.events[-1]["words"]
        return found

    def begin(wire: Wire, samples: Samples) -> None:
        wire.update(transcription=MODEL, turn_detection=None, include=[WORDS])
        wire.append(samples)
        wire.commit()

    alone = []
    for part in parts:
        with open_wire(server.socket_url) as wire:
            begin(wire, part)
            alone.append(words_of(wire))
    with (
        open_wire(server.socket_url) as one,
        open_wire(server.socket_url) as two,
        open_wire(server.socket_url) as three,
    ):
        for wire, part in zip((one, two, three), parts, strict=True):
            begin(wire, part)
        assert [words_of(wire) for wire in (one, two, three)] == alone


def test_times_of_words_are_right_on_real_speech(server: RunningServer) -> None:
    """Half of the words begin within 60 ms of where a forced alignment has them, and nine of ten within 150."""
    clips = [clip for clip in shared_clips("clean") if clip.get("words")][::6]
    if not clips:
        pytest.skip("no recordings with times of words beside the repository")
    errors: list[float] = []
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None, include=[WORDS])
        begin_s = 0.0
        for clip in clips:
            samples = shared_audio(clip["file"])
            wire.append(samples)
            wire.commit()
            words = wire.until(COMPLETED)[-1]["words"]
            errors += start_errors(clip["words"], words, begin_s)
            begin_s += samples.size / SAMPLE_RATE
    assert len(errors) > 100
    assert np.median(errors) < 0.06
    assert np.percentile(errors, 90) < 0.15


def start_errors(reference: Sequence[Any], words: Sequence[Event], begin_s: float) -> list[float]:
    from difflib import SequenceMatcher

    said = [letters(word) for word, _, _ in reference]
    told = [letters(word["word"]) for word in words]
    matcher = SequenceMatcher(None, said, told, autojunk=False)
    return [
        abs(words[block.b + index]["start"] - begin_s - reference[block.a + index][1])
        for block in matcher.get_matching_blocks()
        for index in range(block.size)
    ]


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("model", [SILENT, SHERPA])
def test_a_model_that_cannot_tell_refuses(many: RunningServer, model: str, dialect: DialectName) -> None:
    with open_wire(many.socket_url, dialect) as wire:
        wire.send_update(transcription={"model": model}, include=[WORDS])
        error = wire.until("error")[-1]["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "session.include")
        assert model in error["message"]
        # Nor can a session with words go over to such a model.
        wire.update(transcription={"model": COPY}, include=[WORDS], turn_detection=VAD)
        wire.send_update(transcription={"model": model})
        assert wire.until("error")[-1]["error"]["param"] == "session.include"
        (words,) = turns(wire, best_of_times(), 1)
        assert len(words) > 10


def test_whisper_tells_them_too(many: RunningServer) -> None:
    with open_wire(many.socket_url) as wire:
        wire.update(transcription={"model": MINI}, turn_detection=VAD, include=[WORDS])
        wire.append(spoken(best_of_times()))
        wire.until(COMPLETED)
        (words,) = check_turns(wire)
        assert " ".join(word["word"] for word in words) == QUIET.strip()


def test_a_streaming_model_tells_them_with_its_text(tmp_path: Path) -> None:
    """The small model says the next number every so often while it hears sound."""
    pytest.importorskip("sherpa_onnx")
    folder = str(tiny_transducer.build(tmp_path / "tiny"))
    models = {TINY: {"path": folder, "kind": "transducer", "streaming": True, "languages": ["en"]}}
    running = start_server(AURICLE_MODEL=TINY, AURICLE_MODELS=json.dumps(models))
    try:
        with open_wire(running.socket_url) as wire:
            wire.update(transcription={"model": TINY}, turn_detection=VAD, include=[WORDS])
            (words,) = turns(wire, best_of_times(), 1)
            wire.append(silence(60))
            (later,) = turns(wire, best_of_times(), 1)
            assert len(words) > 3
            shift_s = best_of_times().size / SAMPLE_RATE + 1 + 60
            assert [word["start"] for word in later] == pytest.approx(
                [word["start"] + shift_s for word in words], abs=0.3
            )
            gaps = [other["start"] - one["start"] for one, other in pairwise(words)]
            assert all(gap > 0 for gap in gaps)
    finally:
        running.stop()


def test_an_item_that_is_deleted_while_its_words_are_looked_for_is_gone(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None, include=[WORDS])
        wire.append(best_of_times())
        wire.commit()
        item_id = wire.until(COMMITTED)[-1]["item_id"]
        wire.send("conversation.item.delete", item_id=item_id)
        wire.until("conversation.item.deleted")
        wire.append(best_of_times())
        wire.commit()
        completed = wire.until(COMPLETED)[-1]
        assert completed["item_id"] != item_id
        assert completed["words"]


# Recordings


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("granularities", [["word"], ["word", "segment"], ["segment"], None])
def test_verbose_json_has_what_is_asked_for(client: OpenAI, granularities: list[Any] | None) -> None:
    fields = {"timestamp_granularities": granularities} if granularities else {}
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", wav(two_cities())), response_format="verbose_json", **fields
    )
    wanted = granularities or ["segment"]
    assert (answer.words is not None, answer.segments is not None) == ("word" in wanted, "segment" in wanted)
    if answer.words is None:
        return
    # As OpenAI has them: without spaces and punctuation.
    assert all(re.fullmatch(r"\w[\w'’-]*", word.word) for word in answer.words)
    assert letters("".join(word.word for word in answer.words)) == letters(answer.text)
    times = [time for word in answer.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(SPEECH_S[0], abs=0.15)
    assert times[-1] == pytest.approx(SPEECH_S[1], abs=0.15)
    for segment in answer.segments or ():
        own = [word.word for word in answer.words if segment.start - 0.1 <= word.start < segment.end]
        assert letters("".join(own)) == letters(segment.text)


def cues_of(text: str) -> list[tuple[float, float, str]]:
    """Begin, end and text of each cue of a SubRip file."""
    cues = []
    for cue in text.strip().split("\n\n"):
        _, times, *lines = cue.splitlines()
        begin_s, end_s = (seconds_of(time) for time in times.split(" --> "))
        cues.append((begin_s, end_s, " ".join(lines)))
    return cues


def seconds_of(time: str) -> float:
    hours, minutes, seconds = time.replace(",", ".").split(":")
    return 3600 * float(hours) + 60 * float(minutes) + float(seconds)


def check_cues(cues: Sequence[tuple[float, float, str]], words: Sequence[tuple[str, float, float]]) -> None:
    """Fail unless each cue begins with its first word and ends with its last."""
    rest = list(words)
    for begin_s, end_s, text in cues:
        own = []
        while len(letters("".join(word for word, _, _ in own))) < len(letters(text)):
            own.append(rest.pop(0))
        assert letters("".join(word for word, _, _ in own)) == letters(text)
        assert (begin_s, end_s) == (pytest.approx(own[0][1], abs=2e-3), pytest.approx(own[-1][2], abs=2e-3))
    assert rest == []


def test_cues_begin_and_end_with_their_words(client: OpenAI) -> None:
    file = ("a.wav", wav(two_cities()))
    text = client.audio.transcriptions.create(model="whisper-1", file=file, response_format="srt")
    verbose = client.audio.transcriptions.create(
        model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert verbose.words is not None
    cues = cues_of(text)
    assert len(cues) > 5
    check_cues(cues, [(word.word, word.start, word.end) for word in verbose.words])


def test_granularities_go_with_verbose_json_only(server: RunningServer, many: RunningServer) -> None:
    def refused(server: RunningServer, **fields: Any) -> tuple[str, str, str]:
        files = {"file": ("a.wav", wav(silence(1)))}
        response = httpx.post(f"{server.base_url}/audio/transcriptions", files=files, data=fields)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        return error["code"], error["param"], error["message"]

    asked = {"timestamp_granularities[]": ["word"]}
    for response_format in ("json", "text", "srt"):
        code, param, message = refused(server, response_format=response_format, **asked)
        assert (code, param) == ("invalid_value", "timestamp_granularities")
        assert "verbose_json" in message
    for model in (SILENT, SHERPA):
        code, param, message = refused(many, model=model, response_format="verbose_json", **asked)
        assert (code, param) == ("invalid_value", "timestamp_granularities")
        assert model in message


def test_a_model_without_times_of_words_makes_subtitles_all_the_same(many: RunningServer) -> None:
    files = {"file": ("a.wav", wav(best_of_times()))}
    fields = {"model": SILENT, "response_format": "srt"}
    response = httpx.post(f"{many.base_url}/audio/transcriptions", files=files, data=fields, timeout=60)
    assert letters(cues_of(response.text)[0][2]).startswith("itwasthebestoftimes")


# The command line


def test_the_command_line_has_words_in_json_and_subtitles(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(opening()))

    def transcribe(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
        command = [sys.executable, "-m", "auricle", "transcribe", str(tmp_path / "a.wav"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)

    content = json.loads(transcribe("--format", "json", "--words").stdout)
    assert letters("".join(word["word"] for word in content["words"])) == letters(content["text"])
    assert content["segments"]
    assert "words" not in json.loads(transcribe("--format", "json").stdout)
    words = [(word["word"], word["start"], word["end"]) for word in content["words"]]
    check_cues(cues_of(transcribe("--format", "srt").stdout), words)
    wrong = transcribe("--format", "srt", "--words")
    assert wrong.returncode != 0
    assert "--words is for --format json" in wrong.stderr

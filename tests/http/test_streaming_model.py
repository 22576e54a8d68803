"""A model that streams by itself, through the outside door: a small one whose text counts what it has heard.

A number that is missing or comes twice would show that audio was lost or heard twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest
import tiny_transducer
from clips import silence, wav
from conftest import RunningServer, start_server
from tiny_transducer import NUMBERS
from wire import (
    COMPLETED,
    DELTA,
    STOPPED,
    VAD,
    DialectName,
    Wire,
    best_of_times,
    kinds,
    open_wire,
    opening,
)

from auricle.audio.formats import SAMPLE_RATE, Samples

pytest.importorskip("sherpa_onnx")

TINY, WITH_KEYWORDS = "sherpa/tiny", "sherpa/keywords"


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tiny_transducer.build(tmp_path_factory.mktemp("models") / "tiny")
    tiny = {"path": str(folder), "kind": "transducer", "streaming": True, "languages": ["en"]}
    search = {"decoding_method": "modified_beam_search", "modeling_unit": "bpe", "hotwords_score": 10.0}
    models = {TINY: tiny, WITH_KEYWORDS: tiny | {"options": search, "files": {"bpe_vocab": "bpe.vocab"}}}
    running = start_server(AURICLE_MODEL=TINY, AURICLE_MODELS=json.dumps(models))
    yield running
    running.stop()


def counts(text: str) -> list[int]:
    """The numbers of a text, each with its sound."""
    found = re.findall(r"(\w+)-(?:low|high)", text)
    assert len(found) == len(text.split())
    return [NUMBERS.index(number) for number in found]


def is_unbroken(text: str) -> bool:
    """Whether all is counted from one on, with nothing missing; each stretch of speech begins anew."""
    return all(
        number in ((before + 1) % 10, 1) for before, number in zip([0, *counts(text)], counts(text), strict=False)
    )


def say(wire: Wire, samples: Samples, chunk_s: float = 0.1) -> None:
    size = round(chunk_s * SAMPLE_RATE)
    for start in range(0, samples.size, size):
        wire.append(samples[start : start + size])


def transcript(server: RunningServer, samples: Samples, model: str = TINY, **options: object) -> str:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription={"model": model, **options}, turn_detection=VAD)
        say(wire, samples)
        say(wire, silence(1))
        return str(wire.until(COMPLETED)[-1]["transcript"])


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_words_come_while_speech_goes_on(tiny_server: RunningServer, dialect: DialectName) -> None:
    speech = best_of_times()
    half = speech.size // 2
    with open_wire(tiny_server.socket_url, dialect) as wire:
        wire.update(transcription={"model": TINY}, turn_detection=VAD)
        say(wire, speech[:half])
        wire.until(DELTA)  # the rest is not sent yet, so the turn can't have ended
        assert STOPPED not in kinds(wire.events)
        say(wire, speech[half:])
        say(wire, silence(1))
        completed = wire.until(COMPLETED)[-1]
    deltas = [event["delta"] for event in wire.events if event["type"] == DELTA]
    assert "".join(deltas) == completed["transcript"]
    assert len(deltas) > 1
    assert len(counts(completed["transcript"])) >= 5
    assert is_unbroken(completed["transcript"])


def test_words_come_before_a_commit_by_hand(tiny_server: RunningServer) -> None:
    with open_wire(tiny_server.socket_url) as wire:
        wire.update(transcription={"model": TINY}, turn_detection=None)
        say(wire, opening())
        wire.until(DELTA)
        wire.commit()
        text = wire.until(COMPLETED)[-1]["transcript"]
    assert len(counts(text)) > 15
    assert is_unbroken(text)


def test_sessions_at_once_have_the_text_that_each_has_alone(tiny_server: RunningServer) -> None:
    speeches = [best_of_times(), opening()[: 6 * SAMPLE_RATE], best_of_times()[8_000:], best_of_times() * 3]
    alone = [transcript(tiny_server, speech) for speech in speeches]
    assert len(set(alone)) == len(alone)
    with ExitStack() as stack:
        wires = [stack.enter_context(open_wire(tiny_server.socket_url)) for _ in speeches]
        for wire in wires:
            wire.update(transcription={"model": TINY}, turn_detection=VAD)
        size = SAMPLE_RATE // 5
        for start in range(0, max(speech.size for speech in speeches) + SAMPLE_RATE, size):
            for wire, speech in zip(wires, speeches, strict=True):
                wire.append(speech[start : start + size] if start < speech.size else silence(0.2))
        together = [wire.until(COMPLETED)[-1]["transcript"] for wire in wires]
    assert together == alone


def test_keywords_are_preferred(tiny_server: RunningServer) -> None:
    plain = transcript(tiny_server, best_of_times(), WITH_KEYWORDS)
    assert is_unbroken(plain)
    word = plain.split()[2]
    number, sound = word.split("-")
    keyword = f"{number}-{'high' if sound == 'low' else 'low'}"
    found = transcript(tiny_server, best_of_times(), WITH_KEYWORDS, keywords=[keyword.upper(), "nonsense"])
    assert found.split()[2] == keyword
    assert is_unbroken(found)


def kill_worker(server: RunningServer) -> None:
    workers = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.Error):  # one that has just ended has no command line
            if "--multiprocessing-fork" in child.cmdline():
                workers.append(child)
    for worker in workers:
        worker.kill()
        worker.wait(10)
    assert workers


def test_a_worker_that_dies_amid_speech_costs_no_word(tiny_server: RunningServer) -> None:
    speech = best_of_times()
    expected = transcript(tiny_server, speech)
    half = speech.size // 2
    with open_wire(tiny_server.socket_url) as wire:
        wire.update(transcription={"model": TINY}, turn_detection=VAD)
        say(wire, speech[:half])
        wire.until(DELTA)
        kill_worker(tiny_server)
        say(wire, speech[half:])
        say(wire, silence(1))
        assert wire.until(COMPLETED)[-1]["transcript"] == expected


def test_a_recording_is_transcribed(tiny_server: RunningServer) -> None:
    url = f"{tiny_server.base_url}/audio/transcriptions"
    answer = httpx.post(url, files={"file": ("a.wav", wav(best_of_times()))}, data={"model": TINY}, timeout=60)
    assert len(counts(answer.json()["text"])) >= 5
    assert is_unbroken(answer.json()["text"])

"""Recorded dialogues, replayed.

A file in `dialogues/` is one dialogue in the dialect that its name begins with. Each line is an object with one key:

- `{"note": "…"}`: what the dialogue shows. No effect.
- `{"client": {…}}`: the client sends this event.
- `{"audio": [[windows, level], …], "format": "pcm16"}`: the client sends audio in `append` events: stretches of so many
  32 ms at a constant level. `format` is `pcm16` (24 kHz; the default), `g711_ulaw` or `g711_alaw`. The detector is
  `fakes.LoudnessDetector`: the level is the probability of speech.
- `{"engine": "text"}` or `{"engine": {"error": "message"}}`: of the decodings of speech that is over, the one that has
  waited longest is answered now. A text becomes one token per word, each with the logarithmic probability -0.5.
- `{"live": {"committed": "text", "tentative": "text"}}`: the engine has caught up with the speech that goes on, and
  makes this of it. At all other times it has no time for that.
- `{"server": {…}}`: the next thing that the client is told. All that was told before the next line that is not from the
  server must be there, in order and in full.

In the server's lines `event_id` is left out: every event must have one, and none twice. A string `$name` stands for
a value that is chosen at run time: the same name, the same value; different names, different values. In a client's line
and inside of a longer string it is that value.

Nothing here depends on how events travel: another transport replays the same files with the same two fakes, gating the
engine's answers on the `engine` lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import ALAW, PCM_24K, ULAW, appends
from fakes import MODELS, WINDOW_MS, LoudnessDetector, LoudVoiceDetector, said

from auricle.audio.formats import AudioFormat, encode
from auricle.errors import ClientError, EngineError
from auricle.ids import new_id
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import SessionConfig
from auricle.protocol.events import ErrorEvent
from auricle.protocol.ga import GaDialect
from auricle.session.jobs import Decode, DetectSpeech, Hypothesis, LoadModel
from auricle.session.session import Output, Session, SessionLimits

DIALOGUES = sorted((Path(__file__).parent / "dialogues").glob("*.jsonl"))
FORMATS = {"pcm16": PCM_24K, "g711_ulaw": ULAW, "g711_alaw": ALAW}

Line = dict[str, Any]

_NAME = re.compile(r"\$[a-z]+")


def read_dialogue(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def audio_bytes(stretches: list[tuple[float, float]], audio_format: AudioFormat) -> bytes:
    """The audio of an `audio` line as it is sent."""
    per_window = WINDOW_MS * audio_format.rate_hz // 1000
    samples = [np.full(round(windows * per_window), level, np.float32) for windows, level in stretches]
    return encode(np.concatenate(samples), audio_format)


class Names:
    """What the `$names` of a dialogue stand for."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def filled(self, value: Any) -> Any:
        """A client's event with the values that are known."""
        if isinstance(value, dict):
            return {key: self.filled(inner) for key, inner in value.items()}
        if not isinstance(value, str):
            return value
        if _NAME.fullmatch(value):
            return self.values[value]
        return _NAME.sub(lambda name: str(self.values[name[0]]), value)

    def learn(self, expected: Any, told: Any) -> Any:
        """What is expected, with new names bound to what was told in their place."""
        if isinstance(expected, dict) and isinstance(told, dict):
            return {key: self.learn(inner, told.get(key)) for key, inner in expected.items()}
        if isinstance(expected, list) and isinstance(told, list) and len(expected) == len(told):
            return [self.learn(inner, other) for inner, other in zip(expected, told, strict=True)]
        if not isinstance(expected, str) or "$" not in expected:
            return expected
        if _NAME.fullmatch(expected) and expected not in self.values:
            assert told not in self.values.values(), f"{expected} has the value of another name"
            self.values[expected] = told
        return self.filled(expected)


class Replay:
    """A session that is told a dialogue's lines and answers at once."""

    def __init__(self, dialect: GaDialect | BetaDialect) -> None:
        self.dialect = dialect
        self.session = Session(new_id("sess"), 1_800_000_000, SessionConfig(), SessionLimits(), new_id)
        self.detector = LoudnessDetector()
        self.denoised = LoudVoiceDetector()
        self.decodes: list[Decode] = []
        self.told: list[Line] = []
        self.event_ids: set[str] = set()
        self.take(self.session.start())

    def take(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, DetectSpeech):
                detectors = [self.detector, *([self.denoised] if output.noise_reduction else [])]
                self.take(self.session.receive_speech(*(detector.detect([output])[0] for detector in detectors)))
            elif isinstance(output, LoadModel):
                self.take(self.session.receive_loaded(output))
            elif isinstance(output, Decode):
                # A job takes the place of an older one of its item.
                self.decodes = [job for job in self.decodes if job.stream_id != output.stream_id] + [output]
            else:
                for message in map(json.loads, self.dialect.serialize(output, new_id)):
                    event_id = message.pop("event_id")
                    assert event_id not in self.event_ids
                    self.event_ids.add(event_id)
                    self.told.append(message)

    def send(self, event: Line) -> None:
        try:
            self.take(self.session.receive_event(self.dialect.parse(json.dumps(event))))
        except ClientError as error:
            self.take([ErrorEvent.of(error)])

    def pop(self, *, is_final: bool) -> Decode:
        job = next(job for job in self.decodes if job.is_final is is_final)
        self.decodes = [other for other in self.decodes if other is not job]
        return job

    def answer_live(self, answer: Line) -> None:
        committed, tentative = (words(answer.get(name, "")).committed for name in ("committed", "tentative"))
        while True:
            job = self.pop(is_final=False)
            self.take(self.session.receive_hypothesis(job.stream_id, Hypothesis(committed, tentative)))
            if all(job.is_final for job in self.decodes):
                break
            committed = ()  # so much has come meanwhile that there is a next one at once

    def answer(self, answer: str | Line) -> None:
        job = self.pop(is_final=True)
        if isinstance(answer, str):
            self.take(self.session.receive_hypothesis(job.stream_id, words(answer)))
        else:
            self.take(self.session.receive_failure(job, EngineError(answer["error"])))


def words(text: str) -> Hypothesis:
    """A token per word."""
    return said(*(f" {word}" for word in text.split()))


def turns(lines: list[Line]) -> Iterator[tuple[Line, list[Line]]]:
    """Each line that is not the server's, with the server's lines after it. The opening has no line before it."""
    said_before: Line = {"note": "opening"}
    told: list[Line] = []
    for line in lines:
        if "server" in line:
            told.append(line["server"])
        elif "note" not in line:
            yield said_before, told
            said_before, told = line, []
    yield said_before, told


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_a_dialogue_goes_as_it_was_recorded(path: Path) -> None:
    replay = Replay(GaDialect(MODELS) if path.stem.startswith("ga_") else BetaDialect(MODELS))
    names = Names()
    for line, expected in turns(read_dialogue(path)):
        match line:
            case {"client": event}:
                replay.send(names.filled(event))
            case {"audio": stretches, **rest}:
                for audio in appends(audio_bytes(stretches, FORMATS[rest.get("format", "pcm16")])):
                    replay.send({"type": "input_audio_buffer.append", "audio": audio})
            case {"engine": answer}:
                replay.answer(answer)
            case {"live": answer}:
                replay.answer_live(answer)
        told, replay.told = replay.told, []
        for one, other in zip(expected, told, strict=False):
            assert other == names.learn(one, other)
        assert [event["type"] for event in told] == [event["type"] for event in expected], line
    assert not any(job.is_final for job in replay.decodes), "a decoding was never answered"


def test_every_dialogue_is_in_one_of_the_dialects() -> None:
    assert {path.stem.split("_")[0] for path in DIALOGUES} == {"ga", "beta"}
    kinds = {key for path in DIALOGUES for line in read_dialogue(path) for key in line}
    assert kinds <= {"note", "client", "server", "audio", "format", "engine", "live"}

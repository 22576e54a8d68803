"""Any sequence of events, audio and answers: what always holds."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import numpy as np
import pytest
from fakes import MODELS, OPTIONS, PCM_16K, numbered_ids, said
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.formats import WINDOW_SAMPLES, SampleDecoder
from auricle.errors import EngineError
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import ServerVad, SessionConfig
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import Append, RetrieveItem
from auricle.protocol.ga import GaDialect
from auricle.session.jobs import Decode, DetectSpeech
from auricle.session.session import Output, Session, SessionLimits

DIALECTS: list[Dialect] = [GaDialect(MODELS), BetaDialect(MODELS)]
LIMITS = SessionLimits(max_item_s=1.0, kept_audio_s=60.0)

Op = tuple[str, Any]

_VAD = {"type": "server_vad"}
TURN_DETECTIONS = [
    None,
    _VAD,
    {**_VAD, "silence_duration_ms": 0},
    {**_VAD, "silence_duration_ms": 60, "prefix_padding_ms": 0},
    {**_VAD, "prefix_padding_ms": 1_000, "threshold": 0.3},
    {"type": "semantic_vad", "eagerness": "high"},
    {"type": "nothing"},
]
TRANSCRIPTIONS = [
    None,
    {"model": "whisper-1", "language": "de"},
    {"model": "gpt-4o-transcribe", "prompt": "a b"},
    {"model": "gpt-live-transcribe"},
    {"model": "nobody"},
]
FORMATS = [("audio/pcm", "pcm16"), ("audio/pcmu", "g711_ulaw"), ("audio/pcma", "g711_alaw")]
INCLUDES = [None, ["item.input_audio_transcription.logprobs"], ["nothing"]]


def patch(dialect: Dialect, field: str, value: Any) -> dict[str, Any]:
    """An update's session object that sets one field."""
    if field == "include":
        return {"include": value} if dialect.name == "beta" else {"type": "transcription", "include": value}
    if dialect.name == "beta":
        names = {"format": "input_audio_format", "transcription": "input_audio_transcription"}
        return {names.get(field, field): value[1] if field == "format" else value}
    audio_input = {field: {"type": value[0]} if field == "format" else value}
    return {"type": "transcription", "audio": {"input": audio_input}}


def ops(max_bytes: int = 9_000) -> st.SearchStrategy[list[Op]]:
    """Steps of a client and of the models that serve it."""
    update = st.one_of(
        st.tuples(st.just("turn_detection"), st.sampled_from(TURN_DETECTIONS)),
        st.tuples(st.just("transcription"), st.sampled_from(TRANSCRIPTIONS)),
        st.tuples(st.just("format"), st.sampled_from(FORMATS)),
        st.tuples(st.just("include"), st.sampled_from(INCLUDES)),
    )
    append = st.tuples(st.just("append"), st.integers(1, max_bytes))
    step = st.one_of(
        append,
        append,
        append,
        st.tuples(st.just("update"), update),
        st.tuples(st.sampled_from(["commit", "clear", "hear", "hear", "fail_detection"]), st.none()),
        st.tuples(st.sampled_from(["retrieve", "delete", "text", "fail_text"]), st.integers(1, 6)),
    )
    return st.lists(step, max_size=30)


def speech() -> st.SearchStrategy[list[float]]:
    """A probability for each window, which begin again after the last."""
    runs = st.tuples(st.integers(1, 12), st.sampled_from([0.0, 0.4, 0.6, 1.0]))
    return st.lists(runs, min_size=1, max_size=6).map(
        lambda found: [value for count, value in found for _ in range(count)]
    )


class Play:
    """A session with its client, its detector and its engine, whose answers come when they are told to."""

    def __init__(self, dialect: Dialect, config: SessionConfig, probabilities: list[float]) -> None:
        self.dialect = dialect
        self.new_id = numbered_ids()
        self.session = Session("sess_1", 3600, config, LIMITS, self.new_id)
        self.probabilities = probabilities
        self.windows_heard = 0
        self.detect: DetectSpeech | None = None
        self.decodes: list[Decode] = []
        self.all_decodes: list[Decode] = []
        self.told: list[dict[str, Any]] = []
        self.take(self.session.start())

    def take(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, DetectSpeech):
                assert self.detect is None, "a second detection while one is out"
                assert output.samples.size % WINDOW_SAMPLES == 0 < output.samples.size
                self.detect = output
            elif isinstance(output, Decode):
                self.decodes.append(output)
                self.all_decodes.append(output)
            else:
                self.told += map(json.loads, self.dialect.serialize(output, self.new_id))

    def say(self, **event: Any) -> None:
        self.take(self.session.receive_event(self.dialect.parse(json.dumps(event))))

    def hear(self) -> None:
        if self.detect:
            count = self.detect.samples.size // WINDOW_SAMPLES
            self.detect = None
            values = [
                self.probabilities[(self.windows_heard + index) % len(self.probabilities)] for index in range(count)
            ]
            self.windows_heard += count
            self.take(self.session.receive_speech(values))

    def step(self, op: Op) -> None:
        match op:
            case "append", int(size):
                # Bytes that mean some sound in every format.
                data = bytes(np.arange(size, dtype=np.uint32) * 37 % 251)
                self.say(type="input_audio_buffer.append", audio=base64.b64encode(data).decode())
            case ("commit" | "clear") as kind, _:
                self.say(type=f"input_audio_buffer.{kind}")
            case ("retrieve" | "delete") as kind, number:
                self.say(type=f"conversation.item.{kind}", item_id=f"item_{number}")
            case "update", (field, value):
                self.say(type=self.dialect.update_type, session=patch(self.dialect, field, value))
            case "hear", _:
                self.hear()
            case "fail_detection", _ if self.detect:
                detect, self.detect = self.detect, None
                self.windows_heard += detect.samples.size // WINDOW_SAMPLES
                self.take(self.session.receive_failure(detect, EngineError("Deaf.")))
            case ("text" | "fail_text") as kind, number if self.decodes:
                job = self.decodes.pop(number % len(self.decodes))
                if kind == "text":
                    texts = [" one", " ", "two ", ""][: number % 5]
                    self.take(self.session.receive_hypothesis(job.stream_id, said(*texts)))
                else:
                    self.take(self.session.receive_failure(job, EngineError("Broken.")))

    def finish(self) -> None:
        """Give all answers that are due."""
        while self.detect:
            self.hear()
        while self.decodes:
            self.step(("text", len(self.decodes)))
        assert self.detect is None


class Checker:
    """Reads what a client was told and knows what may follow."""

    def __init__(self) -> None:
        self.wants_text = False
        self.open_item: str | None = None
        self.stopped_item: str | None = None
        self.position_ms = 0
        """End of the last turn: the next can't begin before it."""
        self.start_ms = 0
        self.items: list[str] = []
        """Not deleted, in order."""
        self.seen: set[str] = set()
        self.unended: list[str] = []
        """Items that will have text, in order."""
        self.text: dict[str, str] = {}
        self.just_committed: tuple[str, str | None] | None = None

    def read(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if self.just_committed and not kind.startswith("conversation.item."):
            raise AssertionError(f"{kind} between the commit and its item")
        if self.stopped_item and kind != "input_audio_buffer.committed":
            raise AssertionError(f"{kind} between speech_stopped and committed")
        match kind.split(".")[-1]:
            case "created" | "updated" if "session" in event:
                session = event["session"]
                audio_input = session["audio"]["input"] if "audio" in session else None
                transcription = (
                    audio_input["transcription"] if audio_input is not None else session["input_audio_transcription"]
                )
                self.wants_text = transcription is not None
            case "speech_started":
                assert self.open_item is None
                assert event["item_id"] not in self.seen
                assert event["audio_start_ms"] >= self.position_ms
                self.open_item, self.start_ms = event["item_id"], event["audio_start_ms"]
            case "speech_stopped":
                assert event["item_id"] == self.open_item
                assert event["audio_end_ms"] > self.start_ms
                self.position_ms = event["audio_end_ms"]
                self.stopped_item = event["item_id"]
            case "committed":
                self.committed(event)
            case "cleared":
                self.open_item = None
            case "created" | "added":
                assert (event["item"]["id"], event["previous_item_id"]) == self.just_committed
                self.just_committed = None
            case "done":
                assert event["item"]["id"] == self.items[-1]
            case "deleted":
                self.items.remove(event["item_id"])
                if event["item_id"] in self.unended:
                    self.unended.remove(event["item_id"])
            case "delta":
                assert event["item_id"] == self.unended[0]
                self.text[event["item_id"]] = self.text.get(event["item_id"], "") + event["delta"]
                assert event["delta"]
            case "completed":
                assert event["item_id"] == self.unended.pop(0)
                assert event["transcript"] == self.text.get(event["item_id"], "")
                assert event["transcript"] == event["transcript"].strip()
                assert event["usage"]["type"] in ("tokens", "duration")
            case "failed":
                assert event["item_id"] == self.unended.pop(0)

    def committed(self, event: dict[str, Any]) -> None:
        item_id = event["item_id"]
        assert item_id not in self.seen
        assert self.open_item in (None, item_id)
        assert self.stopped_item in (None, item_id)
        assert event["previous_item_id"] == (self.items[-1] if self.items else None)
        self.just_committed = (item_id, event["previous_item_id"])
        self.open_item = self.stopped_item = None
        self.seen.add(item_id)
        self.items.append(item_id)
        if self.wants_text:
            self.unended.append(item_id)


def check(play: Play) -> Checker:
    event_ids = [event["event_id"] for event in play.told]
    assert len(set(event_ids)) == len(event_ids)
    checker = Checker()
    for event in play.told:
        checker.read(event)
    assert checker.unended == [], "every item that wants text gets it"
    assert checker.just_committed is None
    return checker


def answers(told: list[dict[str, Any]], kind: str) -> int:
    return sum(event["type"].endswith(kind) for event in told)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@settings(max_examples=300, deadline=None)
@given(steps=ops(), probabilities=speech(), config=st.sampled_from([None, ServerVad()]))
def test_any_sequence_keeps_the_order_of_events(
    dialect: Dialect, steps: list[Op], probabilities: list[float], config: ServerVad | None
) -> None:
    play = Play(dialect, SessionConfig(transcription=OPTIONS, turn_detection=config), probabilities)
    for step in steps:
        play.step(step)
    play.finish()
    check(play)
    # Every event but `append` is answered once: with what it asked for or with an error.
    asked = sum(kind in ("commit", "clear", "update", "retrieve", "delete") for kind, _ in steps)
    by_hand = answers(play.told, ".committed") - answers(play.told, ".speech_stopped")
    answered = by_hand + sum(answers(play.told, kind) for kind in (".cleared", ".updated", ".retrieved", ".deleted"))
    errors = [event["error"] for event in play.told if event["type"] == "error"]
    refused = [error for error in errors if error["param"] != "audio" and error["type"] != "server_error"]
    assert answered + len(refused) == asked


@settings(max_examples=200, deadline=None)
@given(steps=ops(), probabilities=speech(), turn_detection=st.sampled_from([None, ServerVad()]))
def test_what_is_told_does_not_depend_on_the_delay_of_detection(
    steps: list[Op], probabilities: list[float], turn_detection: ServerVad | None
) -> None:
    """Detection answers at once in one session and whenever the sequence says so in the other."""
    plays = [
        Play(DIALECTS[0], SessionConfig(transcription=OPTIONS, turn_detection=turn_detection), probabilities)
        for _ in range(2)
    ]
    for step in steps:
        if step[0] in ("text", "fail_text", "fail_detection"):
            continue
        plays[1].step(step)
        if step[0] != "hear":
            plays[0].step(step)
            while plays[0].detect:
                plays[0].hear()
    for play in plays:
        play.finish()
    assert plays[0].told == plays[1].told
    for one, other in zip(plays[0].all_decodes, plays[1].all_decodes, strict=True):
        assert (one.stream_id, one.options) == (other.stream_id, other.options)
        np.testing.assert_array_equal(one.samples, other.samples)


@settings(max_examples=200, deadline=None)
@given(steps=ops(), probabilities=speech(), order=st.lists(st.integers(0, 20), max_size=10))
def test_texts_come_in_the_order_of_items_whatever_the_order_of_answers(
    steps: list[Op], probabilities: list[float], order: list[int]
) -> None:
    """Each item's text is the same and all texts are in the same order, if no item is deleted."""
    tellings = []
    for is_in_order in (True, False):
        play = Play(DIALECTS[0], SessionConfig(transcription=OPTIONS), probabilities)
        for step in steps:
            if step[0] not in ("text", "fail_text", "fail_detection", "delete", "retrieve"):
                play.step(step)
        while play.detect:
            play.hear()
        numbers = iter(order)
        while play.decodes:
            job = play.decodes.pop(0 if is_in_order else next(numbers, 0) % len(play.decodes))
            play.take(play.session.receive_hypothesis(job.stream_id, said(f" the text of {job.stream_id}")))
        tellings.append([event for event in play.told if "transcription." in event["type"]])
        check(play)
    without_ids = [[{**event, "event_id": ""} for event in telling] for telling in tellings]
    assert without_ids[0] == without_ids[1]


@settings(max_examples=300, deadline=None)
@given(steps=ops(max_bytes=20_000), probabilities=speech(), turn_detection=st.sampled_from([None, ServerVad()]))
def test_no_audio_is_lost_and_none_is_in_two_items(
    steps: list[Op], probabilities: list[float], turn_detection: ServerVad | None
) -> None:
    """Each sample tells its position, so each item's audio tells where it was taken from."""
    play = Play(DIALECTS[0], SessionConfig(format=PCM_16K, transcription=OPTIONS), probabilities)
    play.step(("update", ("turn_detection", turn_detection and turn_detection.model_dump(exclude_none=True))))
    appended = 0
    for kind, value in steps:
        if kind == "append":
            position = np.arange(appended, appended + value // 2 + 1)
            data = (position % 65_536 - 32_768).astype("<i2").tobytes()
            errors = answers(play.told, "error")
            play.take(play.session.receive_event(Append(audio=base64.b64encode(data).decode())))
            if answers(play.told, "error") == errors:  # else there was no room for it
                appended += position.size
            play.hear()
        elif kind in ("commit", "clear", "text"):
            play.step((kind, value))
    play.finish()
    ranges = ranges_of_items(play)
    assert play.session.audio_ms == appended // 16
    for (_, end), (start, _) in itertools.pairwise(ranges):
        assert end <= start
    assert all(0 <= start < end <= appended for start, end in ranges)
    ranges_ms = [(start // 16, end // 16) for start, end in ranges]
    assert told_ranges_ms(play).items() <= dict(zip(check(play).items, ranges_ms, strict=True)).items()
    if turn_detection is None and not any(kind == "clear" for kind, _ in steps) and ranges:
        assert ranges[0][0] == 0
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(ranges))


def ranges_of_items(play: Play) -> list[tuple[int, int]]:
    """Where each item's audio begins and ends, in samples, as the audio itself tells."""
    ranges = []
    before = 0
    for item_id in check(play).items:
        (retrieved,) = play.session.receive_event(RetrieveItem(item_id=item_id))
        audio = retrieved.item.content[0].audio
        samples = SampleDecoder(PCM_16K.audio_format).decode(base64.b64decode(audio))
        values = np.rint(samples * 32_768).astype(int) + 32_768
        np.testing.assert_array_equal(np.diff(values) % 65_536, 1)
        start = int(values[0])
        while start < before:
            start += 65_536
        ranges.append((start, start + samples.size))
        before = ranges[-1][1]
    return ranges


def told_ranges_ms(play: Play) -> dict[str, tuple[int, int]]:
    """Where the audio of each whole turn begins and ends, as the events tell."""
    starts: dict[str, int] = {}
    ranges = {}
    for event in play.told:
        if event["type"].endswith("speech_started"):
            starts[event["item_id"]] = event["audio_start_ms"]
        if event["type"].endswith("speech_stopped"):
            ranges[event["item_id"]] = (starts[event["item_id"]], event["audio_end_ms"])
    return ranges

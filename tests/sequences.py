"""Any sequence of what a client, its detector and its engine may do with a session, and a reader of what is told.

`Play` plays a sequence; `Checker` knows what may follow what, and what the text of an item is.
"""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import numpy as np
from fakes import MODELS, numbered_ids, tokens
from hypothesis import strategies as st

from auricle.audio.formats import WINDOW_SAMPLES
from auricle.errors import EngineError
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import LOGPROBS, WORDS, SessionConfig
from auricle.protocol.dialect import Dialect
from auricle.protocol.events import SessionUpdated
from auricle.protocol.ga import GaDialect
from auricle.session.jobs import Align, Alignment, Decode, DetectSpeech, Hypothesis, JudgeTurn, LoadModel
from auricle.session.session import Output, Session, SessionLimits

DIALECTS: list[Dialect] = [GaDialect(MODELS), BetaDialect(MODELS)]
LIMITS = SessionLimits(max_item_s=3.0, kept_audio_s=60.0)

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
    {"model": "fake/many"},
]
UNLOADABLE = "fake/many"
"""Under this name; its aliases can be had."""
FORMATS = [("audio/pcm", "pcm16"), ("audio/pcmu", "g711_ulaw"), ("audio/pcma", "g711_alaw")]
NOISE_REDUCTIONS = [
    None,
    {"type": "near_field"},
    {"type": "far_field", "strength": 0.5},
    {"type": "near_field", "strength": 0},
    {"type": "nowhere"},
]
INCLUDES = [None, [LOGPROBS], [WORDS], [WORDS, LOGPROBS], ["nothing"]]


def patch(dialect: Dialect, field: str, value: Any) -> dict[str, Any]:
    """An update's session object that sets one field."""
    if field == "include":
        return {"include": value} if dialect.name == "beta" else {"type": "transcription", "include": value}
    if dialect.name == "beta":
        names = {
            "format": "input_audio_format",
            "transcription": "input_audio_transcription",
            "noise_reduction": "input_audio_noise_reduction",
        }
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
        st.tuples(st.just("noise_reduction"), st.sampled_from(NOISE_REDUCTIONS)),
    )
    append = st.tuples(st.just("append"), st.integers(1, max_bytes))
    talk = st.tuples(st.just("talk"), st.integers(max_bytes // 2, 4 * max_bytes))  # at once heard
    step = st.one_of(
        append,
        append,
        talk,
        talk,
        st.tuples(st.just("update"), update),
        st.tuples(st.sampled_from(["commit", "clear", "hear", "hear", "fail_detection", "load"]), st.none()),
        st.tuples(st.sampled_from(["retrieve", "delete"]), st.integers(1, 8)),
        st.tuples(st.sampled_from(["text", "text", "text", "fail_text"]), st.integers(0, 500)),
        st.tuples(st.sampled_from(["align", "align", "fail_align"]), st.integers(0, 500)),
    )
    return st.lists(step, min_size=8, max_size=40)


def speech() -> st.SearchStrategy[list[float]]:
    """A probability for each window, which begin again after the last."""
    runs = st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.4, 0.6, 1.0, 1.0]))
    return st.lists(runs, min_size=2, max_size=8).map(
        lambda found: [value for count, value in found for _ in range(count)]
    )


TEXTS = [" one", " ", "two ", ""]


def hypothesis(job: Decode, number: int) -> Hypothesis:
    """One of many answers: some words, sure or not, and of speech that goes on some that may change."""
    logprob = -2.0 if number % 7 == 6 else -0.5
    settled = tokens(*TEXTS[: number % 5], logprob=logprob)
    tentative = () if job.is_final else tokens(*TEXTS[number // 5 % 5 :], logprob=logprob)
    return Hypothesis(settled, tentative, is_streaming=number % 3 == 2)


ANSWERS = ("text", "fail_text", "align", "fail_align", "fail_detection")
"""Steps of the models."""


def alignment(job: Align, number: int) -> Alignment:
    """One of many answers: spans in their order, also without any length."""
    bounds = [
        min(place * (number % 7 + 1) * job.samples.size // 8, job.samples.size) for place in range(len(job.tokens) + 1)
    ]
    return Alignment(tuple(pairwise(bounds)))


class Play:
    """A session with its client, its detector and its engine, whose answers come when they are told to."""

    def __init__(
        self, dialect: Dialect, config: SessionConfig, probabilities: list[float], *, loads_at_once: bool = True
    ) -> None:
        self.dialect = dialect
        self.new_id = numbered_ids()
        self.session = Session("sess_1", 3600, config, LIMITS, self.new_id)
        self.probabilities = probabilities
        self.windows_heard = 0
        self.detect: DetectSpeech | None = None
        self.judge: JudgeTurn | None = None
        self.loads_at_once = loads_at_once
        self.loads: list[LoadModel] = []
        self.decodes: list[Decode] = []
        """The jobs that are out, one of an item."""
        self.alignments: list[Align] = []
        self.all_decodes: list[Decode] = []
        self.may_be_asked_anew: set[str] = set()
        """Items of which a job was out when the settings changed."""
        self.told: list[dict[str, Any]] = []
        self.take(self.session.start())

    def take(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, DetectSpeech):
                assert self.detect is None, "a second detection while one is out"
                assert output.samples.size % WINDOW_SAMPLES == 0 < output.samples.size
                self.detect = output
            elif isinstance(output, JudgeTurn):
                assert self.judge is None, "a second question while one is out"
                self.judge = output
            elif isinstance(output, LoadModel):
                self.loads.append(output)
                if self.loads_at_once:
                    self.load()
            elif isinstance(output, Decode):
                self.ask(output)
            elif isinstance(output, Align):
                assert output.tokens
                assert output.samples.size
                self.alignments.append(output)
            else:
                if isinstance(output, SessionUpdated):
                    self.may_be_asked_anew |= {job.stream_id for job in self.decodes}
                self.told += map(json.loads, self.dialect.serialize(output, self.new_id))

    def ask(self, job: Decode) -> None:
        """A job comes in. It may take the place of an older one of its item, as the end of speech does."""
        older = [other for other in self.decodes if other.stream_id == job.stream_id]
        if older:
            assert older[0].piece <= job.piece
            assert job.stage < older[0].stage or job.stream_id in self.may_be_asked_anew
        assert job.samples.size
        self.may_be_asked_anew.discard(job.stream_id)
        self.decodes = [other for other in self.decodes if other.stream_id != job.stream_id] + [job]
        self.all_decodes.append(job)

    def drop_live(self) -> None:
        """The engine has no time for speech that goes on."""
        self.decodes = [job for job in self.decodes if job.is_final]

    def say(self, **event: Any) -> None:
        self.take(self.session.receive_event(self.dialect.parse(json.dumps(event))))

    def load(self) -> None:
        """Answer the oldest question for a model."""
        job = self.loads.pop(0)
        if job.model == UNLOADABLE:
            self.take(self.session.receive_failure(job, EngineError("Nowhere to be found.")))
        else:
            self.take(self.session.receive_loaded(job))

    @property
    def can_hear(self) -> bool:
        return self.detect is not None or self.judge is not None

    def hear(self) -> None:
        """Answer what is asked of the sound, a question about the turn first."""
        if self.judge:
            job, self.judge = self.judge, None
            # What is judged must be the same audio however it came.
            self.take(self.session.receive_judgement(float(np.abs(job.samples).sum()) % 1))
        elif self.detect:
            count = self.detect.samples.size // WINDOW_SAMPLES
            has_cleaned = self.detect.noise_reduction is not None
            assert self.detect.start == self.windows_heard * WINDOW_SAMPLES
            self.detect = None
            values = [
                self.probabilities[(self.windows_heard + index) % len(self.probabilities)] for index in range(count)
            ]
            # Of what is heard in every third window nothing is left without the noise.
            cleaned = [value * ((self.windows_heard + index) % 3 > 0) for index, value in enumerate(values)]
            self.windows_heard += count
            self.take(self.session.receive_speech(values, cleaned if has_cleaned else None))

    def step(self, op: Op) -> None:
        match op:
            case ("append" | "talk") as kind, int(size):
                # Bytes that mean some sound in every format.
                data = bytes(np.arange(size, dtype=np.uint32) * 37 % 251)
                self.say(type="input_audio_buffer.append", audio=base64.b64encode(data).decode())
                while kind == "talk" and self.can_hear:
                    self.hear()
            case ("commit" | "clear") as kind, _:
                self.say(type=f"input_audio_buffer.{kind}")
            case ("retrieve" | "delete") as kind, number:
                self.say(type=f"conversation.item.{kind}", item_id=f"item_{number}")
            case "update", (field, value):
                self.say(type=self.dialect.update_type, session=patch(self.dialect, field, value))
            case "hear", _:
                self.hear()
            case "load", _ if self.loads:
                self.load()
            case "fail_detection", _ if self.judge:
                judge, self.judge = self.judge, None
                self.take(self.session.receive_failure(judge, EngineError("Of two minds.")))
            case "fail_detection", _ if self.detect:
                detect, self.detect = self.detect, None
                self.windows_heard += detect.samples.size // WINDOW_SAMPLES
                self.take(self.session.receive_failure(detect, EngineError("Deaf.")))
            case "text", number if self.decodes:
                job = self.decodes.pop(number % len(self.decodes))
                try:
                    self.take(self.session.receive_hypothesis(job.stream_id, self.decode(job, number // 6)))
                except EngineError as error:
                    self.take(self.session.receive_failure(job, error))
            case "fail_text", number if self.decodes:
                job = self.decodes.pop(number % len(self.decodes))
                self.take(self.session.receive_failure(job, EngineError("Broken.")))
            case "align", number if self.alignments:
                align = self.alignments.pop(number % len(self.alignments))
                self.take(self.session.receive_alignment(align, alignment(align, number)))
            case "fail_align", number if self.alignments:
                align = self.alignments.pop(number % len(self.alignments))
                self.take(self.session.receive_failure(align, EngineError("Lost count.")))

    def decode(self, job: Decode, number: int) -> Hypothesis:
        """The engine's answer, one of many. Raises EngineError."""
        return hypothesis(job, number)

    def finish(self) -> None:
        """Give all answers that are due."""
        while self.can_hear or self.loads:
            self.hear()
            if self.loads:
                self.load()
        while self.decodes or self.alignments:
            self.step(("text", len(self.decodes)))
            self.step(("align", 0))
        assert self.detect is None


class Checker:
    """Reads what a client was told and knows what may follow."""

    def __init__(self) -> None:
        self.wants_text = self.is_by_hand = False
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
        self.may_have_none: set[str] = set()
        """Those of them that began with transcription and were committed without: it holds only if some text was found
        before the change, which the client needs not have been told yet."""
        self.text: dict[str, str] = {}
        self.live_item: str | None = None
        """The item of which some text was told and that is not committed."""
        self.wanted_text = False
        """Whether text was wanted at any time since the last item ended."""
        self.was_by_hand = False
        """Whether no turns were detected at any time since the last item ended."""
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
                self.wanted_text |= self.wants_text
                self.is_by_hand = (audio_input or session)["turn_detection"] is None
                self.was_by_hand |= self.is_by_hand
            case "speech_started":
                assert self.open_item is None
                assert event["item_id"] not in self.seen
                assert self.live_item in (None, event["item_id"])
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
                self.ended()
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
                self.delta(event["item_id"], event["delta"])
            case "completed":
                self.told_all(event["item_id"])
                assert event["transcript"] == self.text.get(event["item_id"], "")
                assert event["transcript"] == event["transcript"].strip()
                assert event["usage"]["type"] in ("tokens", "duration")
                self.words(event)
            case "failed":
                self.told_all(event["item_id"])

    def words(self, event: dict[str, Any]) -> None:
        """Those that are told are the text's, one after the other."""
        if "words" in event:
            told = "".join(word["word"] for word in event["words"])
            assert told.replace(" ", "") == event["transcript"].replace(" ", "")
            times = [time for word in event["words"] for time in (word["start"], word["end"])]
            assert times == sorted(times)
            assert all("logprob" in word for word in event["words"]) == ("logprobs" in event) or not event["words"]

    def delta(self, item_id: str, delta: str) -> None:
        """More text of the oldest item whose text is not complete, or else of the open one."""
        assert delta
        self.skip_those_without_text(item_id)
        if self.unended:
            assert item_id == self.unended[0]
        else:
            assert item_id not in self.seen
            assert item_id == (self.live_item or self.open_item or item_id)
            assert self.live_item or self.open_item or self.was_by_hand
            self.live_item = item_id
        assert item_id in self.text or not delta[0].isspace()
        self.text[item_id] = self.text.get(item_id, "") + delta

    def told_all(self, item_id: str) -> None:
        self.skip_those_without_text(item_id)
        assert item_id == self.unended.pop(0)

    def skip_those_without_text(self, item_id: str) -> None:
        while self.unended and self.unended[0] != item_id and self.unended[0] in self.may_have_none:
            self.unended.pop(0)

    def ended(self) -> None:
        """What comes next is a new item."""
        self.live_item = None
        self.wanted_text, self.was_by_hand = self.wants_text, self.is_by_hand

    def committed(self, event: dict[str, Any]) -> None:
        item_id = event["item_id"]
        assert item_id not in self.seen
        assert self.open_item in (None, item_id)
        assert self.stopped_item in (None, item_id)
        assert self.live_item in (None, item_id)
        assert event["previous_item_id"] == (self.items[-1] if self.items else None)
        self.just_committed = (item_id, event["previous_item_id"])
        self.open_item = self.stopped_item = None
        self.seen.add(item_id)
        self.items.append(item_id)
        if self.wanted_text:
            self.unended.append(item_id)
        if not self.wants_text and item_id != self.live_item:
            self.may_have_none.add(item_id)
        self.ended()


def check(play: Play) -> Checker:
    event_ids = [event["event_id"] for event in play.told]
    assert len(set(event_ids)) == len(event_ids)
    checker = Checker()
    for event in play.told:
        checker.read(event)
    assert set(checker.unended) <= checker.may_have_none, "every item that wants text gets it"
    assert checker.just_committed is None
    return checker


def answers(told: list[dict[str, Any]], kind: str) -> int:
    return sum(event["type"].endswith(kind) for event in told)

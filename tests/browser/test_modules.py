"""The playground's pure modules, called inside a browser: files, code samples, session objects, encoding, events."""

from __future__ import annotations

import ast
import json
from typing import Any

import numpy as np
import pytest
from conftest import RunningServer
from playwright.sync_api import Browser, Page

from auricle.audio.formats import AudioFormat, SampleDecoder
from auricle.protocol.beta import BetaDialect
from auricle.protocol.config import LOGPROBS, WORDS, ModelDirectory, ModelInfo, SessionConfig
from auricle.protocol.ga import GaDialect

MODELS = ModelDirectory([ModelInfo("a-model", ("en",), has_word_times=True)], {}, "a-model")
DIALECTS = {"ga": GaDialect(MODELS), "beta": BetaDialect(MODELS)}

CHANGES: list[dict[str, Any]] = [
    {},
    {"format": "audio/pcmu"},
    {"rate": 16_000, "language": " en ", "delay": "low"},
    {"languages": "en, de fr", "keywords": "Ada Lovelace\nAuricle, Moonshine\n", "prompt": 'It\'s "quoted" \\ <ok>.'},
    {"turn_detection": "none", "logprobs": False},
    {"words": True},
    {"words": True, "logprobs": False},
    {"turn_detection": "semantic_vad", "eagerness": "high", "noise_reduction": "far_field", "strength": 0.5},
    {"threshold": 0.35, "prefix_padding_ms": 0, "silence_duration_ms": 900, "format": "audio/pcma"},
    {"model": "none"},
    {"model": "a-model"},
]


class Modules:
    """Calls functions of the page's modules."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def __call__(self, module: str, expression: str, **values: Any) -> Any:
        """The value of an expression with a module's exports, as `m`, and `values`, as `v`, in scope."""
        source = f"async (v) => {{ const m = await import('/playground/{module}.js'); return {expression}; }}"
        return self._page.evaluate(source, values)


@pytest.fixture(scope="module")
def call(server: RunningServer, browser: Browser) -> Modules:
    page = browser.new_page()
    page.goto(f"{server.root_url}/playground/icon.svg")  # a page of the server's without scripts
    return Modules(page)


def item(text: str, start_ms: int | None = None, end_ms: int | None = None, **fields: Any) -> dict[str, Any]:
    times = {"start_ms": start_ms, "end_ms": end_ms, "firstWordMs": None, "finalMs": None}
    told = {"status": "completed", "error": None, "logprobs": [], "words": []}
    return {"id": "item_1", "text": text, **told, **times, **fields}


# Session objects


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_session_object_is_one_that_the_server_takes(call: Modules, dialect: str, changes: dict[str, Any]) -> None:
    session = call(
        "session-object", "m.sessionObject({...m.DEFAULTS, ...v.changes})", changes={**changes, "dialect": dialect}
    )
    config = DIALECTS[dialect].update(SessionConfig(), session)
    assert (config.transcription is None) == (changes.get("model") == "none")
    assert (config.turn_detection is None) == (changes.get("turn_detection") == "none")
    assert config.format.type == changes.get("format", "audio/pcm")
    wanted = ({LOGPROBS} if changes.get("logprobs", True) else set()) | ({WORDS} if changes.get("words") else set())
    assert set(config.include or ()) == wanted


@pytest.mark.parametrize("dialect", ["ga", "beta"])
def test_update_takes_a_session_from_any_settings_to_any_others(call: Modules, dialect: str) -> None:
    of = "m.sessionObject({...m.DEFAULTS, dialect: v.dialect, ...%s})"
    for before in CHANGES:
        for after in CHANGES:
            values = {"dialect": dialect, "before": before, "after": after}
            first, second = (call("session-object", of % f"v.{name}", **values) for name in ("before", "after"))
            patch = call("session-object", f"m.sessionPatch({of % 'v.before'}, {of % 'v.after'})", **values)
            config = DIALECTS[dialect].update(SessionConfig(), first)
            if patch is None:
                assert first == second
                continue
            wanted = DIALECTS[dialect].update(SessionConfig(), second)
            assert DIALECTS[dialect].update(config, patch) == wanted, (before, after, patch)


def test_update_says_only_what_changed(call: Modules) -> None:
    of = "m.sessionObject({...m.DEFAULTS, ...%s})"
    patch = call("session-object", f"m.sessionPatch({of % '{language: `en`}'}, {of % '{silence_duration_ms: 700}'})")
    turns = {"type": "server_vad", "silence_duration_ms": 700}
    assert patch == {
        "type": "transcription",
        "audio": {"input": {"transcription": {"language": None}, "turn_detection": turns}},
    }


@pytest.mark.parametrize(
    ("param", "dialect", "field"),
    [
        ("session.audio.input.turn_detection.threshold", "ga", "threshold"),
        ("session.audio.input.transcription.keywords[3]", "ga", "keywords"),
        ("session.audio.input.format.rate", "ga", "rate"),
        ("session.audio.input.turn_detection", "ga", "turn_detection"),
        ("session.input_audio_transcription.language", "beta", "language"),
        ("turn_detection.type", "beta", "turn_detection"),
        ("input_audio_format", "beta", "format"),
        ("audio", "ga", None),
        (None, "ga", None),
    ],
)
def test_error_is_shown_at_the_field_that_it_names(call: Modules, param: str, dialect: str, field: str | None) -> None:
    found = call("session-object", "m.fieldOfParam(v.param, v.dialect)", param=param, dialect=dialect)
    # The object "audio" holds all of a GA session: its first field is as good as any.
    assert found == field or (param == "audio" and found is not None)


# Audio


@pytest.mark.parametrize("kind", ["audio/pcm", "audio/pcmu", "audio/pcma"])
def test_samples_are_encoded_as_the_server_decodes_them(call: Modules, kind: str) -> None:
    samples = np.concatenate([np.linspace(-1.1, 1.1, 4001), [0.0, 1e-4, -1e-4]])
    encoded = bytes(
        call(
            "audio-encoding", "[...m.encode(Float32Array.from(v.samples), v.kind)]", samples=samples.tolist(), kind=kind
        )
    )
    heard = SampleDecoder(AudioFormat(kind, 24_000 if kind == "audio/pcm" else 8_000)).decode(encoded)
    # G.711 has 4 bits of mantissa: a step of its largest segment is 1/32 of full scale.
    tolerance = 1 / 32768 if kind == "audio/pcm" else np.maximum(np.abs(samples) / 16, 1e-3)
    assert np.all(np.abs(heard - np.clip(samples, -1, 1)) <= tolerance)


@pytest.mark.parametrize(("rate", "wanted"), [(48_000, 24_000), (44_100, 24_000), (48_000, 8_000), (16_000, 48_000)])
def test_resampler_keeps_a_tone_and_has_no_seams(call: Modules, rate: int, wanted: int) -> None:
    expression = """(() => {
      const resampler = new m.Resampler(v.rate, v.wanted);
      const output = [];
      for (let start = 0, size = 1; start < v.rate; start += size, size = (size * 7) % 997 + 1) {
        const chunk = Float32Array.from({length: size}, (_, n) => Math.sin(2 * Math.PI * 1000 * (start + n) / v.rate));
        output.push(...resampler.push(chunk));
      }
      return output;
    })()"""
    output = np.array(call("audio-encoding", expression, rate=rate, wanted=wanted))
    assert abs(len(output) - wanted) < 0.05 * wanted
    settled = np.arange(400, len(output))
    expected = np.sin(2 * np.pi * 1000 * settled / wanted)
    assert np.max(np.abs(output[400:] - expected)) < 1e-3


def test_resampler_lets_nothing_through_that_would_fold_back(call: Modules) -> None:
    expression = """[...new m.Resampler(48000, 8000).push(
      Float32Array.from({length: 48000}, (_, n) => Math.sin(2 * Math.PI * 6000 * n / 48000)))]"""
    assert np.max(np.abs(call("audio-encoding", expression)[200:])) < 1e-3


def test_base64_of_more_than_one_call_can_take(call: Modules) -> None:
    assert call("audio-encoding", "atob(m.base64(new Uint8Array(100000).fill(7))).length") == 100_000


# Transcripts


REDUCE = """(() => {
  const transcript = new m.Transcript();
  for (const [what, ...values] of v.steps) transcript[what](...values);
  return { items: transcript.items, gaps: transcript.gaps, pending: transcript.pending().length };
})()"""
TEXT = "conversation.item.input_audio_transcription."


def reduce(call: Modules, *steps: Any) -> Any:
    return call("transcript", REDUCE, steps=steps)


def event(kind: str, item_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "item_id": item_id, **fields}


def turn(item_id: str, start_ms: int, end_ms: int, at_ms: float = 1000) -> list[Any]:
    """A turn's events, its latencies 400 and 30 ms."""
    return [
        ("apply", event("input_audio_buffer.speech_started", item_id, audio_start_ms=start_ms), at_ms),
        ("apply", event(TEXT + "delta", item_id, delta="Hello"), at_ms + 400),
        ("apply", event(TEXT + "delta", item_id, delta=" there."), at_ms + 600),
        ("apply", event("input_audio_buffer.speech_stopped", item_id, audio_end_ms=end_ms), at_ms + 900),
        ("apply", event("input_audio_buffer.committed", item_id), at_ms + 900),
        ("apply", event(TEXT + "completed", item_id, transcript="Hello there."), at_ms + 930),
    ]


def test_turn_has_its_times_text_and_latencies(call: Modules) -> None:
    result = reduce(call, ("beginSession", 0), *turn("a", 300, 1500))
    (only,) = result["items"]
    assert (only["start_ms"], only["end_ms"], only["text"], only["status"]) == (300, 1500, "Hello there.", "completed")
    assert (only["firstWordMs"], only["finalMs"]) == (400, 30)
    assert result["pending"] == 0


def test_commit_by_hand_gives_an_item_its_times(call: Modules) -> None:
    result = reduce(
        call,
        ("beginSession", 0),
        ("noteCommit", 2000, 5000),
        ("apply", event("input_audio_buffer.committed"), 5020),
        ("apply", event(TEXT + "completed", transcript="One."), 5100),
        ("apply", event(TEXT + "delta", "b", delta="Two."), 6000),
        ("noteCommit", 3500, 6500),
        ("apply", event("input_audio_buffer.committed", "b"), 6520),
    )
    assert [(one["start_ms"], one["end_ms"]) for one in result["items"]] == [(0, 2000), (2000, 3500)]
    assert result["items"][0]["finalMs"] == 100
    assert result["pending"] == 1


def test_times_of_words_are_on_the_clock_of_the_run(call: Modules) -> None:
    words = [{"word": "Hello", "start": 0.5, "end": 0.75, "logprob": -0.1}]
    completed = event(TEXT + "completed", transcript="Hello", words=words)
    result = reduce(call, ("beginSession", 3000), ("apply", completed, 4000))
    assert result["items"][0]["words"] == [{"word": "Hello", "start": 3.5, "end": 3.75, "logprob": -0.1}]


def test_new_session_goes_on_where_the_audio_is(call: Modules) -> None:
    opened = event("input_audio_buffer.speech_started", "b", audio_start_ms=2000)
    result = reduce(
        call,
        ("beginSession", 0),
        *turn("a", 300, 1500),
        ("apply", opened, 3000),
        ("loseSession", 4000),
        ("beginSession", 9000),
        *turn("c", 100, 800),
    )
    assert [one["status"] for one in result["items"]] == ["completed", "cut", "completed"]
    assert result["items"][1]["end_ms"] == 4000
    assert (result["items"][2]["start_ms"], result["items"][2]["end_ms"]) == (9100, 9800)
    assert result["gaps"] == [{"start_ms": 4000, "end_ms": 9000}]


def test_words_carry_the_probability_of_their_least_sure_token(call: Modules) -> None:
    tokens = [{"token": " Hel", "logprob": -0.1}, {"token": "lo", "logprob": -1.0}, {"token": " there", "logprob": 0}]
    found = call("transcript", "m.words('Hello there', v.tokens)", tokens=tokens)
    assert [one["text"] for one in found] == ["Hello", " there"]
    assert found[0]["probability"] == pytest.approx(np.exp(-1))
    other = call("transcript", "m.words('Something else', v.tokens)", tokens=tokens)
    assert other == [{"text": "Something else", "probability": None}]


# Files


ITEMS = [
    item("Hello <b>there</b>\nat last. ", 0, 1499.6, firstWordMs=512.4, finalMs=12),
    item("", 1600, 1700),
    item("And & more.", 3_599_999, 3_600_050),
]


def test_txt_has_a_line_an_item(call: Modules) -> None:
    assert call("transcript-files", "m.toTxt(v.items)", items=ITEMS) == "Hello <b>there</b> at last.\nAnd & more.\n"


def test_srt_numbers_its_cues(call: Modules) -> None:
    assert call("transcript-files", "m.toSrt(v.items)", items=ITEMS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello <b>there</b> at last.\n\n"
        "2\n00:59:59,999 --> 01:00:00,199\nAnd & more.\n"
    )


def test_vtt_escapes_what_would_be_markup(call: Modules) -> None:
    assert call("transcript-files", "m.toVtt(v.items)", items=ITEMS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello &lt;b&gt;there&lt;/b&gt; at last.\n"
        "\n00:59:59.999 --> 01:00:00.199\nAnd &amp; more.\n"
    )


def test_subtitles_follow_the_words_where_their_times_are_known(call: Modules) -> None:
    spoken = [{"word": f"word{number}", "start": number, "end": number + 0.5} for number in range(20)]
    items = [item(" ".join(one["word"] for one in spoken), 0, 60_000, words=spoken)]
    cues = call("transcript-files", "m.toSrt(v.items)", items=items).split("\n\n")
    assert [cue.splitlines()[1] for cue in cues] == [
        "00:00:00,000 --> 00:00:12,500",
        "00:00:13,000 --> 00:00:19,500",
    ]
    assert all(len(cue.splitlines()[2]) <= 84 for cue in cues)
    assert " ".join(cue.splitlines()[2] for cue in cues) == items[0]["text"]


def test_json_has_all_that_is_known(call: Modules) -> None:
    gaps = [{"start_ms": 5.2, "end_ms": None}]
    written = call("transcript-files", "m.toJson(v.items, {a: 1}, v.gaps)", items=ITEMS, gaps=gaps)
    parsed = json.loads(written)
    assert parsed["session"] == {"a": 1}
    assert [one["text"] for one in parsed["items"]] == [one["text"] for one in ITEMS]
    assert parsed["items"][0]["first_word_latency_ms"] == 512
    assert parsed["not_heard"] == [{"start_ms": 5, "end_ms": None}]


# Events


LOG = """(() => {
  const log = new m.EventLog(v.limit ?? 100);
  for (const [direction, event] of v.events) log.add(direction, event, 10, 5);
  const matches = m.matcher(v.filter ?? {});
  return { entries: log.entries, shown: log.entries.filter(matches),
    lines: log.toJsonLines(matches), dropped: log.dropped };
})()"""
APPEND = ("sent", {"type": "input_audio_buffer.append", "audio": "AAAA"})
CREATED = ("received", {"type": "session.created", "session": {"id": "sess_1"}})
COMMIT = ("sent", {"type": "input_audio_buffer.commit"})


def test_appends_in_a_row_are_one_entry(call: Modules) -> None:
    result = call("event-log", LOG, events=[CREATED, APPEND, APPEND, APPEND, COMMIT, APPEND])
    assert [(one["type"].rpartition(".")[2], one["count"], one["bytes"]) for one in result["entries"]] == [
        ("created", 1, 10),
        ("append", 3, 30),
        ("commit", 1, 10),
        ("append", 1, 10),
    ]
    assert "AAAA" not in result["lines"]


def test_filter_looks_at_text_direction_and_type(call: Modules) -> None:
    events = [CREATED, APPEND, COMMIT]
    for chosen, count in [
        ({"text": "SESS_1"}, 1),
        ({"direction": "sent"}, 2),
        ({"type": COMMIT[1]["type"]}, 1),
        ({}, 3),
    ]:
        result = call("event-log", LOG, events=events, filter=chosen)
        assert len(result["shown"]) == count
        assert len([json.loads(line) for line in result["lines"].splitlines()]) == count


def test_oldest_events_are_dropped(call: Modules) -> None:
    result = call("event-log", LOG, events=[CREATED, COMMIT] * 4, limit=3)
    assert (len(result["entries"]), result["dropped"]) == (3, 5)


# Code samples


@pytest.mark.parametrize("dialect", ["ga", "beta"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_python_sample_is_a_program_with_the_same_session(call: Modules, dialect: str, changes: dict[str, Any]) -> None:
    settings = {**changes, "dialect": dialect}
    place = {"origin": "http://host:1", "wantsKey": False, "defaultModel": "a-model", "transport": "websocket"}
    program = call(
        "session-object",
        "(await import('/playground/code-samples.js')).pythonSample({...m.DEFAULTS, ...v.settings}, v.place)",
        settings=settings,
        place=place,
    )
    (literal,) = [
        node.value
        for node in ast.parse(program).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "session"
    ]
    session = call("session-object", "m.sessionObject({...m.DEFAULTS, ...v.settings})", settings=settings)
    assert ast.literal_eval(literal) == session


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_javascript_sample_has_the_same_session(call: Modules, changes: dict[str, Any]) -> None:
    expression = """(async () => {
      const { javascriptLiteral } = await import('/playground/code-samples.js');
      return javascriptLiteral(m.sessionObject({...m.DEFAULTS, ...v.changes}));
    })()"""
    literal = call("session-object", f"await {expression}", changes=changes)
    session = call("session-object", "m.sessionObject({...m.DEFAULTS, ...v.changes})", changes=changes)
    assert call("session-object", f"({literal})") == session

"""Manifests, options and the embedded clip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.records import clip

from auricle.audio.formats import AudioFormat
from auricle.bench.corpus import MANIFEST, embedded_clips, load_clips, of_kinds
from auricle.bench.options import Options
from auricle.errors import AuricleError


def manifest(folder: Path, *lines: object) -> Path:
    (folder / MANIFEST).write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return folder


def test_a_manifest_is_read(tmp_path: Path):
    words = [["it", 0.5, 0.7], ["was", 0.7, 1.0]]
    folder = manifest(
        tmp_path,
        {"file": "a.wav"},
        "",
        {"id": "b", "file": "b.wav", "kind": "noisy", "snr_db": 10, "text": "It was", "words": words},
        {"file": "c.wav", "kind": "telephone", "scoring": "digits"},
    )
    first, second, third = load_clips(folder)
    assert (first.id, first.kind, first.text, first.speech_s) == ("a.wav", "speech", "", None)
    assert second.path == tmp_path / "b.wav"
    assert (second.group, second.speech_s) == ("noisy 10 dB", (0.5, 1.0))
    assert third.group == "telephone digits"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], "no clips"),
        (['{"file": "a.wav"}', "{"], "line 2"),
        ([{"id": "a"}], "line 1: 'file' is missing"),
        ([{"file": "a.wav", "words": [["it", 1]]}], "line 1: "),
        (["[]"], "line 1: "),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(tmp_path: Path, lines: list, told: str):
    with pytest.raises(AuricleError, match=told):
        load_clips(manifest(tmp_path, *lines))


def test_kinds_are_chosen_by_name():
    clips = [clip(), clip(group="other")]
    assert of_kinds(clips, ()) == of_kinds(clips, ["clean"]) == clips
    with pytest.raises(AuricleError, match=r"'loud'.*clean"):
        of_kinds(clips, ["loud"])


def test_the_embedded_clip_can_be_sent_with_silence_after_it():
    [found] = embedded_clips()
    data = found.wire_bytes(AudioFormat("audio/pcmu", 8_000), 1.0)
    assert len(data) == pytest.approx(8_000 * 45.374, abs=80)
    assert set(data[-4_000:]) == {0xFF}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pcm16", {"type": "audio/pcm", "rate": 24_000}),
        ("pcm@16000", {"type": "audio/pcm", "rate": 16_000}),
        ("g711_ulaw", {"type": "audio/pcmu"}),
        ("g711_alaw", {"type": "audio/pcma"}),
    ],
)
def test_formats_are_the_sessions(text: str, expected: dict):
    assert Options(format=text).audio_input(None)["format"] == expected


@pytest.mark.parametrize(
    ("text", "expected", "silence_s"),
    [
        ("none", None, 0),
        ("server_vad:300", 300, 1.0),
        ("server_vad", 500, 1.2),
        ("semantic_vad", "auto", 4.7),
        ("semantic_vad:low", "low", 8.7),
    ],
)
def test_turn_detection_is_the_sessions(text: str, expected: object, silence_s: float):
    options = Options(turn_detection=text)
    turns = options.turns
    assert (turns and turns.get("silence_duration_ms", turns.get("eagerness"))) == expected
    assert options.trailing_silence_s == pytest.approx(silence_s)
    assert Options(turn_detection=text, silence=3.0).trailing_silence_s == 3.0


def test_transcription_has_only_what_was_asked_for():
    assert Options().audio_input(None)["transcription"] == {"model": "gpt-4o-transcribe"}
    assert Options(language="en").audio_input("low")["transcription"]["delay"] == "low"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"format": "mp3"}, "--format: 'mp3'"),
        ({"format": "pcm@100"}, "--format"),
        ({"turn_detection": "server_vad:x"}, "--turn-detection"),
        ({"turn_detection": "semantic_vad:now"}, "--turn-detection"),
        ({"turn_detection": "none:1"}, "--turn-detection"),
        ({"delay": "low,none"}, "--delay: 'none'"),
        ({"find_capacity": True, "delay": "low,high"}, "--find-capacity"),
        ({"find_capacity": True, "speed": 2}, "--find-capacity"),
        ({"chart": Path("x.txt")}, "--chart"),
        ({"json": Path("/no/such/folder/x.json")}, "no folder"),
    ],
)
def test_wrong_options_are_told(fields: dict, told: str):
    with pytest.raises(ValueError, match=told):
        Options(**fields)

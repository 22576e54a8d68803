"""Hearing at the edges, through the socket: first and last samples, close turns, long sessions, odd levels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from clips import PCM_24K, ULAW, shared_audio, shared_clips, silence, two_cities, wire_bytes
from conftest import RunningServer
from wire import BEST_OF_TIMES, COMMITTED, LIVE_VAD, MODEL, STARTED, STOPPED, VAD, Event, Wire, best_of_times, open_wire
from words import EnglishTextNormalizer, said, word_error_rate

from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples

PHRASES = (
    "It was the best of times",
    "it was the worst of times",
    "it was the age of wisdom",
    "it was the age of foolishness",
    "it was the epoch of belief",
    "it was the epoch of incredulity",
)
"""What is said in the first `phrases()`."""

_FRAME_SAMPLES = SAMPLE_RATE // 100
_LOUD_DB = -55
"""Quieter parts of a last "s" are needed too, or it is not heard."""
_LONGEST_CLOSURE_FRAMES = 10
"""Shorter silence, such as that of a stop consonant, is in the middle of a phrase."""
_SHORTEST_PHRASE_FRAMES = 50


def phrases() -> list[Samples]:
    """The clip's phrases, cut where their sound begins and ends."""
    samples = two_cities()[: 13 * SAMPLE_RATE]
    frames = samples.reshape(-1, _FRAME_SAMPLES)
    loud = np.flatnonzero(10 * np.log10((frames**2).mean(axis=1) + 1e-10) > _LOUD_DB)
    runs = np.split(loud, np.flatnonzero(np.diff(loud) > _LONGEST_CLOSURE_FRAMES) + 1)
    return [
        samples[run[0] * _FRAME_SAMPLES : (run[-1] + 1) * _FRAME_SAMPLES]
        for run in runs
        if run[-1] - run[0] > _SHORTEST_PHRASE_FRAMES
    ]


def words(text: str) -> list[str]:
    return EnglishTextNormalizer()(text).split()


def times_ms(wire: Wire) -> tuple[list[int], list[int]]:
    """Where the turns begin and end, as the client was told."""
    starts = [event["audio_start_ms"] for event in wire.events if event["type"] == STARTED]
    return starts, [event["audio_end_ms"] for event in wire.events if event["type"] == STOPPED]


def decibels(value: float) -> float:
    return float(10 ** (value / 20))


# The first sample and the last


@pytest.mark.parametrize("turn_detection", [None, VAD], ids=["by hand", "server_vad"])
def test_speech_is_heard_from_the_first_sample_to_the_last_before_the_commit(
    server: RunningServer, turn_detection: Event | None
) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=turn_detection)
        for phrase in phrases():
            wire.append(phrase)
            wire.commit()
        wire.finish()
    assert len(wire.transcripts) == len(PHRASES)
    for text, transcript in zip(PHRASES, wire.transcripts, strict=True):
        assert (words(transcript)[0], words(transcript)[-1]) == (words(text)[0], words(text)[-1])


WITH_WORDS = [clip for clip in shared_clips("clean") if "words" in clip and 2 < clip["seconds"] < 6][::4]


@pytest.mark.skipif(not WITH_WORDS, reason="needs the recordings beside the repository")
def test_recordings_cut_at_their_words_keep_the_first_and_the_last(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=None)
        for clip in WITH_WORDS:
            samples = shared_audio(clip["file"])
            first, last = clip["words"][0], clip["words"][-1]
            for part in (samples, samples[round(first[1] * SAMPLE_RATE) : round(last[2] * SAMPLE_RATE)]):
                wire.append(part)
                wire.commit()
        wire.finish()
    for whole, cut in zip(wire.transcripts[::2], wire.transcripts[1::2], strict=True):
        assert (words(cut)[0], words(cut)[-1]) == (words(whole)[0], words(whole)[-1])


# Turns that follow each other closely


@pytest.mark.parametrize("silence_s", [0.2, 0.256, 0.32, 0.5], ids=lambda seconds: f"{seconds * 1000:g} ms")
def test_no_audio_and_no_word_is_in_two_turns(server: RunningServer, silence_s: float) -> None:
    parts = [part for phrase in phrases() for part in (phrase, silence(silence_s))]
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=LIVE_VAD)
        wire.append(np.concatenate([silence(0.5), *parts, silence(1)]))
        wire.finish()
    starts, ends = times_ms(wire)
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    assert word_error_rate(" ".join(PHRASES), wire.text) <= 0.1
    for word in ("best", "worst", "wisdom", "foolishness", "belief", "incredulity"):
        assert words(wire.text).count(word) == 1
    if silence_s > 0.25:  # 200 ms of silence are 7 windows of 32 ms, so that much must be silent
        assert len(wire.transcripts) == len(starts) == len(ends) == len(PHRASES)


@pytest.mark.parametrize("audio_format", [PCM_24K, ULAW], ids=["PCM at 24 kHz", "µ-law at 8 kHz"])
def test_the_clock_does_not_drift_in_many_turns(server: RunningServer, audio_format: AudioFormat) -> None:
    phrase, pauses_s = phrases()[0], np.random.default_rng(1).uniform(0.75, 1.4, 50)
    parts = [np.concatenate([silence(pause_s), phrase]) for pause_s in pauses_s]
    said_ms = np.cumsum([part.size for part in parts]) / 16 - phrase.size / 16
    wire_format = {"type": audio_format.type} | ({"rate": 24_000} if audio_format is PCM_24K else {})
    with open_wire(server.socket_url) as wire:
        wire.update(format=wire_format, turn_detection=LIVE_VAD)
        wire.append(np.concatenate([*parts, silence(1)]), audio_format, chunk_bytes=9_601)  # also half a sample
        for _ in parts:
            wire.until(COMMITTED)
    starts, ends = times_ms(wire)
    assert len(starts) == len(ends) == len(parts)
    errors_ms = np.array(starts) + LIVE_VAD["prefix_padding_ms"] - said_ms
    assert np.abs(errors_ms).max() <= 64
    assert abs(errors_ms[:10].mean() - errors_ms[-10:].mean()) <= 32
    assert all(end <= start for end, start in pairwise(np.ravel([starts, ends], order="F")))


# Levels and faults of the sender


@pytest.mark.parametrize(
    "change",
    [lambda samples: samples * decibels(-30), lambda samples: samples + 0.1, lambda samples: samples * decibels(12)],
    ids=["-30 dB", "an offset of 0.1", "+12 dB, clipped"],
)
@pytest.mark.parametrize("turn_detection", [None, VAD], ids=["by hand", "server_vad"])
def test_speech_is_understood_at_any_level(server: RunningServer, change, turn_detection: Event | None) -> None:
    samples = np.clip(change(np.concatenate([best_of_times(), silence(1)])), -1, 1).astype(np.float32)
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=turn_detection)
        wire.append(samples)
        if turn_detection is None:
            wire.commit()
        wire.finish()
    assert said(wire.text)


MUSIC = [clip for clip in shared_clips("noise") if clip["id"].startswith("music")]


@pytest.mark.skipif(not MUSIC, reason="needs the recordings beside the repository")
def test_loud_music_gives_no_text(server: RunningServer) -> None:
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=VAD)
        for level_db in (6, 8, 10, 14):
            loud = np.clip(shared_audio(MUSIC[0]["file"])[: 4 * SAMPLE_RATE] * decibels(level_db), -1, 1)
            wire.append(np.concatenate([loud.astype(np.float32), silence(2)]))
        wire.finish()
    assert "".join(wire.transcripts) == ""


@pytest.mark.parametrize("turn_detection", [None, VAD], ids=["by hand", "server_vad"])
def test_stereo_sent_by_mistake_harms_nothing(server: RunningServer, turn_detection: Event | None) -> None:
    """It is heard as mono at half the speed, and what follows as it is."""
    pcm = np.frombuffer(wire_bytes(best_of_times()), "<i2")
    with open_wire(server.socket_url) as wire:
        wire.update(transcription=MODEL, turn_detection=turn_detection)
        wire.append_bytes(np.repeat(pcm, 2).tobytes())
        wire.commit()
        wire.finish()
        wire.append(np.concatenate([best_of_times(), silence(1)]))
        if turn_detection is None:
            wire.commit()
        wire.finish()
    assert said(wire.transcripts[-1], BEST_OF_TIMES)

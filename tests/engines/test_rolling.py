"""Collecting, cutting and joining, with a model that answers with lengths; and once with real speech."""

from __future__ import annotations

import wave
from collections.abc import Sequence

import numpy as np
import pytest
import soxr

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import Decode, EngineError, Hypothesis, Token, Transcription
from auricle.engines.moonshine import MoonshineModel, embedded_folder
from auricle.engines.rolling import RollingEngine, join_segments, quietest_sample, split_at_pauses

OPTIONS = Transcription(model="m")


class LengthModel:
    """Answers each utterance with its first sample and its length, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[Transcription]]] = []

    def transcribe(self, utterances: Sequence[Samples], options: Sequence[Transcription]) -> list[tuple[Token, ...]]:
        self.calls.append((len(utterances), list(options)))
        return [(Token(f" {samples[0]:g}", -1), Token(f"x{samples.size}", -2)) for samples in utterances]


class FailingModel:
    def transcribe(self, utterances: Sequence[Samples], options: Sequence[Transcription]) -> list[tuple[Token, ...]]:
        raise EngineError("out of memory")


def audio(value: float, length: int) -> Samples:
    return np.full(length, value, np.float32)


def job(stream_id: str, samples: Samples, *, is_final: bool = False, options: Transcription = OPTIONS) -> Decode:
    return Decode(stream_id, options, samples, is_final)


def text_of(hypothesis: Hypothesis) -> str:
    assert hypothesis.tentative == ()
    return "".join(token.text for token in hypothesis.committed)


def test_text_comes_with_the_final_job_and_streams_do_not_mix() -> None:
    model = LengthModel()
    engine = RollingEngine(model)
    assert engine.decode([job("a", audio(1, 100)), job("b", audio(2, 50))]) == [Hypothesis(), Hypothesis()]
    assert model.calls == []
    results = engine.decode([job("a", audio(1, 11), is_final=True), job("b", audio(2, 7))])
    assert [text_of(result) for result in results] == [" 1x111", ""]
    (last,) = engine.decode([job("b", audio(2, 0), is_final=True)])
    assert text_of(last) == " 2x57"


def test_all_segments_of_all_final_jobs_go_to_the_model_in_one_call() -> None:
    model = LengthModel()
    engine = RollingEngine(model, max_segment_s=10)
    other = Transcription(model="m", language="en")
    jobs = [
        job("a", audio(1, 24 * SAMPLE_RATE), is_final=True),
        job("b", audio(2, 40)),
        job("c", audio(3, 30), is_final=True, options=other),
    ]
    long, unfinished, short = engine.decode(jobs)
    assert model.calls == [(4, [OPTIONS, OPTIONS, OPTIONS, other])]
    assert len(long.committed) == 6
    assert unfinished == Hypothesis()
    assert text_of(short) == " 3x30"


def test_a_final_job_without_any_audio_gives_no_text() -> None:
    model = LengthModel()
    assert RollingEngine(model).decode([job("a", audio(0, 0), is_final=True)]) == [Hypothesis()]
    assert model.calls == []


@pytest.mark.parametrize("way", ["final", "release"])
def test_finished_and_released_streams_are_forgotten(way: str) -> None:
    engine = RollingEngine(LengthModel())
    engine.decode([job("a", audio(1, 100), is_final=way == "final")])
    engine.release("a")
    engine.release("unknown")
    (again,) = engine.decode([job("a", audio(5, 10), is_final=True)])
    assert text_of(again) == " 5x10"


def test_a_failure_of_the_model_is_passed_on_and_forgets_the_final_streams() -> None:
    engine = RollingEngine(FailingModel())
    with pytest.raises(EngineError, match="out of memory"):
        engine.decode([job("a", audio(1, 100), is_final=True)])
    assert engine.decode([job("a", audio(1, 0), is_final=True)]) == [Hypothesis()]


def noise(seconds: float) -> Samples:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def test_audio_is_cut_in_its_pauses_and_nothing_is_lost() -> None:
    samples = noise(40)
    for pause_s in (3.0, 12.0, 23.0, 28.5, 33.5):  # the first lies too early, the last two in what may stay whole
        samples[int(pause_s * SAMPLE_RATE) : int((pause_s + 0.4) * SAMPLE_RATE)] *= 0.01
    segments = split_at_pauses(samples, 20)
    assert np.array_equal(np.concatenate(segments), samples)
    cuts_s = np.cumsum([segment.size for segment in segments])[:-1] / SAMPLE_RATE
    assert cuts_s == pytest.approx([12.2, 23.2], abs=0.15)


@pytest.mark.parametrize("seconds", [0.5, 20, 20.01, 21, 35, 40, 40.1, 97.3])
def test_segments_are_neither_too_long_nor_scraps(seconds: float) -> None:
    lengths_s = [segment.size / SAMPLE_RATE for segment in split_at_pauses(noise(seconds), 20)]
    assert sum(lengths_s) == pytest.approx(seconds, abs=1e-3)
    assert max(lengths_s) <= 20
    assert len(lengths_s) == 1 or min(lengths_s) >= 5


def test_silence_is_cut_into_the_longest_segments() -> None:
    lengths_s = [segment.size / SAMPLE_RATE for segment in split_at_pauses(audio(0, 60 * SAMPLE_RATE), 20)]
    assert lengths_s == pytest.approx([15, 15, 15, 15], abs=0.5)


def test_a_long_pause_wins_over_a_short_gap() -> None:
    samples = noise(5)
    samples[SAMPLE_RATE : SAMPLE_RATE + 640] = 0  # 40 ms, as before a stop consonant
    samples[3 * SAMPLE_RATE : 3 * SAMPLE_RATE + 4800] *= 0.05
    assert quietest_sample(samples) / SAMPLE_RATE == pytest.approx(3.15, abs=0.1)


def test_the_middle_is_taken_where_there_is_too_little_to_choose_from() -> None:
    assert quietest_sample(noise(0.1)) == 800


def test_segments_are_joined_with_one_space() -> None:
    first = (Token(" One", -1), Token(".", -1))
    joined = join_segments([(), first, (), (Token("Two", -3, 1.0, 2.0), Token("!", -1)), (Token(" three", -1),)])
    assert [token.text for token in joined] == [" One", ".", " Two", "!", " three"]
    assert joined[2] == Token(" Two", -3, 1.0, 2.0)


def test_reads_a_clip_that_is_longer_than_a_segment() -> None:
    with wave.open(str(embedded_folder().parent / "two_cities.wav")) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        samples = soxr.resample(pcm.astype(np.float32) / 32768, file.getframerate(), SAMPLE_RATE)
    engine = RollingEngine(MoonshineModel.embedded())
    for start in range(0, samples.size, SAMPLE_RATE):
        assert engine.decode([job("a", samples[start : start + SAMPLE_RATE])]) == [Hypothesis()]
    (result,) = engine.decode([job("a", samples[:0], is_final=True)])
    text = text_of(result).lower()
    assert text.startswith(" it was the best of times")
    for phrase in ("age of wisdom", "season of light", "winter of despair", "superlative degree of comparison"):
        assert phrase in text

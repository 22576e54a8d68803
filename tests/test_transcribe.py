"""Whole recordings to text, with the real models."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pytest
from clips import silence, two_cities
from fakes import OPTIONS, LengthEngine, LoudnessDetector

from auricle.audio.formats import Samples
from auricle.engines.base import Align, Alignment, Engine, EngineError
from auricle.engines.registry import catalog, load_engine
from auricle.engines.silero import SileroDetector
from auricle.protocol.config import Transcription
from auricle.settings import DEFAULT_MODEL, Settings
from auricle.transcribe import Segment, transcribe

MODEL = Transcription(model=DEFAULT_MODEL)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine(catalog(Settings()).spec(DEFAULT_MODEL), 2)


def blocks_of(samples: Samples, size: int) -> list[Samples]:
    return [samples[start : start + size] for start in range(0, samples.size, size)]


def loud(seconds: float) -> Samples:
    """Speech, if one asks the loudness detector."""
    return np.full(round(seconds * 16_000), 0.8, np.float32)


def fake(*blocks: Samples) -> list[Segment]:
    return list(transcribe(blocks, OPTIONS, LoudnessDetector(), LengthEngine()))


def test_a_whole_recording_becomes_its_text(engine: Engine) -> None:
    blocks = blocks_of(two_cities(), 16_000)
    segments = list(transcribe(blocks, MODEL, SileroDetector.embedded(), engine))
    text = re.sub(r"\W+", " ", " ".join(segment.text for segment in segments)).lower()
    assert text.startswith("it was the best of times it was the worst of times")
    assert "season of light" in text
    assert "winter of despair" in text
    assert all(segment.start_s < segment.end_s for segment in segments)
    assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(segments))
    assert segments[-1].end_s <= two_cities().size / 16_000


def test_the_size_of_blocks_does_not_change_the_text(engine: Engine) -> None:
    clip = two_cities()[: 10 * 16_000]
    found = [
        list(transcribe(blocks_of(clip, size), MODEL, SileroDetector.embedded(), engine))
        for size in (clip.size, 7_919, 501)
    ]
    assert found[0]
    assert found[0] == found[1] == found[2]


def test_silence_has_no_text(engine: Engine) -> None:
    assert list(transcribe([silence(5), silence(0.01)], MODEL, SileroDetector.embedded(), engine)) == []


def test_nothing_has_no_text() -> None:
    assert fake() == []
    assert fake(silence(0)) == []


def test_a_segment_is_where_the_speech_is() -> None:
    (segment,) = fake(silence(3.2), loud(1.6), silence(3.2))
    assert segment.start_s == pytest.approx(3.2)
    assert segment.end_s == pytest.approx(3.2 + 1.6)
    assert int(segment.text.split()[0]) <= round((1.6 + 0.812) * 16_000)


def test_a_turn_that_the_end_cuts_is_transcribed() -> None:
    (segment,) = fake(silence(1.6), loud(1.6), silence(0.01))
    assert segment.end_s == pytest.approx(3.21, abs=0.032)


def test_no_word_ends_behind_the_recording() -> None:
    """Speech is found in windows, in the middle of one of which a recording may end."""

    class AligningEngine(LengthEngine):
        def align(self, jobs: Sequence[Align]) -> list[Alignment]:
            return [Alignment(((0, job.samples.size),) * len(job.tokens)) for job in jobs]

    recording = loud(1.625)
    (segment,) = transcribe([recording], OPTIONS, LoudnessDetector(), AligningEngine(), with_words=True)
    assert segment.words is not None
    assert segment.words[-1].end == segment.end_s == 1.625


def test_two_turns_share_no_audio() -> None:
    first, second = fake(loud(1.6), silence(1.28), loud(1.6), silence(3.2))
    assert first.end_s <= second.start_s


def test_a_click_is_not_transcribed() -> None:
    assert fake(silence(1.6), loud(0.064), silence(3.2)) == []


def test_a_long_recording_is_not_kept() -> None:
    """Each turn comes as soon as it has ended: nothing waits for the end of the file."""
    read: list[int] = []

    def blocks():
        for index in range(4):
            read.append(index)
            yield np.concatenate([loud(1.6), silence(1.6)])

    segments = transcribe(blocks(), OPTIONS, LoudnessDetector(), LengthEngine())
    next(segments)
    assert read == [0]


def test_a_failure_of_the_engine_is_told() -> None:
    options = OPTIONS.model_copy(update={"prompt": "fail"})
    with pytest.raises(EngineError, match="The prompt asked for it"):
        list(transcribe([loud(1.6), silence(1.6)], options, LoudnessDetector(), LengthEngine()))


def test_the_detector_forgets_the_recording() -> None:
    detector = LoudnessDetector()
    list(transcribe([loud(1.6)], OPTIONS, detector, LengthEngine()))
    assert len(detector.released) == 1

"""Long utterances: where they are cut, and how their text comes together again."""

from __future__ import annotations

import numpy as np
import pytest
from clips import two_cities
from fakes import hear, jobs_of, said, session_with

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import Decode, EngineError
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.rolling import RollingEngine
from auricle.protocol.events import Commit, TranscriptionCompleted, TranscriptionDelta, TranscriptionFailed
from auricle.session.session import Session
from auricle.session.speech import quietest_sample, split_at_pauses


def noise(seconds: float) -> Samples:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def test_audio_is_cut_in_its_pauses_and_nothing_is_lost() -> None:
    samples = noise(40)
    for pause_s in (3.0, 12.0, 23.0, 28.5, 33.5):  # the first lies too early, the last two in what may stay whole
        samples[int(pause_s * SAMPLE_RATE) : int((pause_s + 0.4) * SAMPLE_RATE)] *= 0.01
    pieces = split_at_pauses(samples, 20)
    assert np.array_equal(np.concatenate(pieces), samples)
    cuts_s = np.cumsum([piece.size for piece in pieces])[:-1] / SAMPLE_RATE
    assert cuts_s == pytest.approx([12.2, 23.2], abs=0.15)


@pytest.mark.parametrize("seconds", [0.5, 20, 20.01, 21, 35, 40, 40.1, 97.3])
def test_pieces_are_neither_too_long_nor_scraps(seconds: float) -> None:
    lengths_s = [piece.size / SAMPLE_RATE for piece in split_at_pauses(noise(seconds), 20)]
    assert sum(lengths_s) == pytest.approx(seconds, abs=1e-3)
    assert max(lengths_s) <= 20
    assert len(lengths_s) == 1 or min(lengths_s) >= 5


def test_silence_is_cut_into_the_longest_pieces() -> None:
    lengths_s = [piece.size / SAMPLE_RATE for piece in split_at_pauses(np.zeros(60 * SAMPLE_RATE, np.float32), 20)]
    assert lengths_s == pytest.approx([15, 15, 15, 15], abs=0.5)


def test_a_long_pause_wins_over_a_short_gap() -> None:
    samples = noise(5)
    samples[SAMPLE_RATE : SAMPLE_RATE + 640] = 0  # 40 ms, as before a stop consonant
    samples[3 * SAMPLE_RATE : 3 * SAMPLE_RATE + 4800] *= 0.05
    assert quietest_sample(samples) / SAMPLE_RATE == pytest.approx(3.15, abs=0.1)


def test_the_middle_is_taken_where_there_is_too_little_to_choose_from() -> None:
    assert quietest_sample(noise(0.1)) == 800


def committed(samples: Samples) -> tuple[Session, list]:
    """A session whose client has committed audio by hand, all of it speech, and what came of that."""
    session = session_with(turn_detection=None)
    hear(session, session.receive_audio(samples), [0.9])
    return session, session.receive_event(Commit())


def test_a_long_item_is_decoded_piece_by_piece_and_tells_each() -> None:
    session, outputs = committed(noise(40))
    (job,) = jobs_of(outputs)
    told, sizes = [], []
    for text in (" One", "two.", " Three"):
        sizes.append(job.samples.size)
        outputs = session.receive_hypothesis("item_1", said(text))
        told += [output.delta for output in outputs if isinstance(output, TranscriptionDelta)]
        (job,) = jobs_of(outputs) or [None]
    assert told == ["One", " two.", " Three"]
    assert isinstance(outputs[-1], TranscriptionCompleted)
    assert outputs[-1].transcript == "One two. Three"
    assert sum(sizes) == 40 * SAMPLE_RATE
    assert job is None


def test_a_piece_that_fails_ends_the_item() -> None:
    session, outputs = committed(noise(40))
    (job,) = jobs_of(outputs)
    (next_job,) = jobs_of(session.receive_hypothesis("item_1", said(" One")))
    (failed,) = session.receive_failure(next_job, EngineError("broken"))
    assert isinstance(failed, TranscriptionFailed)
    assert session.receive_hypothesis("item_1", said(" late")) == []
    assert isinstance(job, Decode)


def test_a_recording_longer_than_a_piece_is_read_whole() -> None:
    session, outputs = committed(two_cities())
    engine = RollingEngine(MoonshineModel.embedded())
    while jobs := jobs_of(outputs):
        (hypothesis,) = engine.decode(jobs)
        outputs = session.receive_hypothesis("item_1", hypothesis)
    text = outputs[-1].transcript.lower()
    assert text.startswith("it was the best of times")
    for phrase in ("age of wisdom", "season of light", "winter of despair", "superlative degree of comparison"):
        assert phrase in text

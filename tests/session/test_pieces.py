"""Long utterances: where they are cut, and how their text comes together again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from clips import two_cities
from fakes import events_of, finals_of, hear, said, session_with, speak
from hypothesis import given, settings
from hypothesis import strategies as st

from auricle.audio.formats import SAMPLE_RATE, WINDOW_SAMPLES, Samples
from auricle.engines.base import Decode, EngineError
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.rolling import RollingEngine
from auricle.protocol.config import ServerVad
from auricle.protocol.events import Commit, TranscriptionCompleted, TranscriptionDelta, TranscriptionFailed
from auricle.session import speech
from auricle.session.session import Output, Session
from auricle.session.speech import (
    MAX_SAMPLES,
    TAIL_WINDOWS,
    TELLING_SAMPLES,
    SpeechFinder,
    SpeechPiece,
    quietest_sample,
)
from auricle.session.turns import TurnRule

WINDOWS_PER_S = SAMPLE_RATE / WINDOW_SAMPLES
TAIL = TAIL_WINDOWS * WINDOW_SAMPLES
RULE = TurnRule.of(ServerVad())


def noise(seconds: float) -> Samples:
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)


def windows(samples: int) -> int:
    """How many windows are at least as long."""
    return -(-samples // WINDOW_SAMPLES)


def finder_of(samples: Samples | None = None) -> SpeechFinder:
    audio = noise(200) if samples is None else samples
    return SpeechFinder(0, RULE, lambda start, end: audio[start:end])


def pieces_of(samples: Samples, probability: float = 0.9) -> list[SpeechPiece]:
    """The pieces of audio that is speech all over."""
    finder = finder_of(samples)
    for _ in range(samples.size // WINDOW_SAMPLES):
        finder.push(probability)
    finder.end(samples.size)
    return list(finder.ended)


# Where they are cut


@pytest.mark.parametrize(("enough", "pause"), speech._ENOUGH)
def test_a_long_piece_ends_at_a_shorter_pause(enough: int, pause: int) -> None:
    finder = finder_of()
    for probability in [0.9] * windows(enough) + [0.0] * (pause - 1):
        finder.push(probability)
    assert not finder.ended
    finder.push(0.0)
    (piece,) = finder.ended
    last = windows(enough) * WINDOW_SAMPLES
    assert (piece.start, piece.end) == (0, last + min(pause, TAIL_WINDOWS) * WINDOW_SAMPLES)
    assert finder.current is None


@pytest.mark.parametrize(("enough", "pause"), speech._ENOUGH)
def test_a_shorter_piece_goes_on_behind_such_a_pause(enough: int, pause: int) -> None:
    finder = finder_of()
    for probability in [0.9] * (windows(enough) - 1) + [0.0] * pause:
        finder.push(probability)
    assert not finder.ended


def test_speech_without_a_pause_is_cut_where_it_is_quietest_and_nothing_is_lost() -> None:
    samples = noise(45)
    for pause_s in (3.0, 12.0, 18.6, 37.0, 39.5):  # only the third and the fourth lie where a cut may be
        samples[int(pause_s * SAMPLE_RATE) : int((pause_s + 0.4) * SAMPLE_RATE)] *= 0.01
    pieces = pieces_of(samples)
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == samples.size
    assert [piece.end / SAMPLE_RATE for piece in pieces[:-1]] == pytest.approx([18.8, 37.2], abs=0.15)


@pytest.mark.parametrize("seconds", [0.5, 20, 20.01, 21, 35, 40, 40.1, 97.3])
def test_pieces_are_no_longer_than_they_may_be(seconds: float) -> None:
    pieces = pieces_of(noise(seconds))
    assert sum(piece.size for piece in pieces) == int(seconds * SAMPLE_RATE)
    assert max(piece.size for piece in pieces) <= MAX_SAMPLES + WINDOW_SAMPLES
    assert all(piece.size >= TELLING_SAMPLES for piece in pieces[:-1])


def test_monotonous_speech_is_cut_into_the_longest_pieces() -> None:
    sizes = [piece.size for piece in pieces_of(np.zeros(50 * SAMPLE_RATE, np.float32))]
    assert sizes[:-1] == pytest.approx([MAX_SAMPLES] * 2, abs=SAMPLE_RATE / 4)


def test_what_a_cut_leaves_must_prove_itself() -> None:
    first, second = pieces_of(noise(20.5))
    assert first.clear_windows > 500
    assert second.clear_windows * WINDOW_SAMPLES <= second.size


def test_faint_sound_is_no_speech_however_long_it_lasts() -> None:
    """Music that may be speech for longer than a piece, and in no window surely is."""
    assert pieces_of(noise(45), probability=0.4) == []


def test_a_long_pause_wins_over_a_short_gap() -> None:
    samples = noise(5)
    samples[SAMPLE_RATE : SAMPLE_RATE + 640] = 0  # 40 ms, as before a stop consonant
    samples[3 * SAMPLE_RATE : 3 * SAMPLE_RATE + 4800] *= 0.05
    assert quietest_sample(samples) / SAMPLE_RATE == pytest.approx(3.15, abs=0.1)


def test_the_middle_is_taken_where_there_is_too_little_to_choose_from() -> None:
    assert quietest_sample(noise(0.1)) == 800


def speech_of_minutes() -> st.SearchStrategy[list[float]]:
    """A probability for each window of up to some minutes: long speech, and pauses of all lengths."""
    talk = st.tuples(st.integers(1, 800), st.just(0.9))
    pause = st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.4, 0.4]))
    return st.lists(st.one_of(talk, pause, pause), min_size=1, max_size=10).map(
        lambda runs: [0.9, 0.9] + [value for count, value in runs for _ in range(count)]
    )


@settings(max_examples=60, deadline=None)
@given(probabilities=speech_of_minutes(), start=st.integers(0, WINDOW_SAMPLES - 1))
def test_what_goes_on_is_the_beginning_of_what_is_found_in_the_end(probabilities: list[float], start: int) -> None:
    """So what was told of it stays right: it is decoded as part of the same piece."""
    audio = noise(len(probabilities) / WINDOWS_PER_S + 1)
    finder = SpeechFinder(start, RULE, lambda begin, end: audio[begin:end])
    seen = []
    for probability in probabilities:
        finder.push(probability)
        if finder.current and finder.current.size <= TELLING_SAMPLES:
            seen.append(finder.current)
    finder.end(len(probabilities) * WINDOW_SAMPLES)
    pieces = {piece.start: piece for piece in finder.ended}
    for current in seen:
        piece = pieces[current.start]
        assert current.end <= piece.end
        assert current.clear_windows <= piece.clear_windows


@settings(max_examples=60, deadline=None)
@given(probabilities=speech_of_minutes())
def test_pieces_lie_one_after_the_other_and_have_all_clear_speech(probabilities: list[float]) -> None:
    audio = noise(len(probabilities) / WINDOWS_PER_S + 1)
    finder = finder_of(audio)
    for probability in probabilities:
        finder.push(probability)
    finder.end(len(probabilities) * WINDOW_SAMPLES)
    pieces = list(finder.ended)
    assert all(one.end <= other.start for one, other in itertools.pairwise(pieces))
    assert all(0 < piece.size <= MAX_SAMPLES + TAIL + WINDOW_SAMPLES for piece in pieces)
    clear = np.array(probabilities) >= 0.5
    covered = np.zeros(clear.size, bool)
    for piece in pieces:
        covered[piece.start // WINDOW_SAMPLES : -(-piece.end // WINDOW_SAMPLES)] = True
    # A single clear window far from all others may be left out.
    lonely = [index for index in np.flatnonzero(clear & ~covered) if clear[max(index - 5, 0) : index + 6].sum() > 1]
    assert lonely == []


# How the text comes together


class Listener:
    """Has a session decode, and gives each final job a text of its own."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.jobs: list[Decode] = []
        self.events: list = []

    def take(self, outputs: list[Output]) -> None:
        while outputs:
            self.events += events_of(outputs)
            finals = finals_of(outputs)
            self.jobs += finals
            outputs = []
            for job in finals:
                outputs += self.session.receive_hypothesis(job.stream_id, said(f" {job.samples.size} samples."))


@settings(max_examples=25, deadline=None)
@given(
    probabilities=speech_of_minutes(),
    chunks=st.lists(st.integers(1, 200), min_size=1, max_size=5),
    is_by_hand=st.booleans(),
)
def test_pieces_do_not_depend_on_how_much_is_heard_at_once(
    probabilities: list[float], chunks: list[int], is_by_hand: bool
) -> None:
    samples = noise(len(probabilities) / WINDOWS_PER_S + 1)[: len(probabilities) * WINDOW_SAMPLES]
    turn_detection = None if is_by_hand else ServerVad(silence_duration_ms=2_000)
    found = []
    for sizes, is_live in (([1], True), (chunks, True), ([len(probabilities)], True), (chunks, False)):
        listener = Listener(session_with(turn_detection=turn_detection, is_live=is_live))
        position = turn = 0
        while position < len(probabilities):
            end = min(position + sizes[turn % len(sizes)], len(probabilities))
            chunk = samples[position * WINDOW_SAMPLES : end * WINDOW_SAMPLES]
            listener.take(hear(listener.session, listener.session.receive_audio(chunk), probabilities[position:end]))
            position, turn = end, turn + 1
        listener.take(listener.session.receive_event(Commit()))
        completed = [event.transcript for event in listener.events if isinstance(event, TranscriptionCompleted)]
        found.append((completed, [(job.stream_id, job.piece, hash(job.samples.tobytes())) for job in listener.jobs]))
    assert found[0] == found[1] == found[2] == found[3]


def committed(samples: Samples) -> tuple[Session, list]:
    """A session whose client has committed audio by hand, all of it speech, and the decodings that came of it."""
    session = session_with(turn_detection=None, is_live=False)
    outputs = hear(session, session.receive_audio(samples), [0.9])
    return session, finals_of(outputs + session.receive_event(Commit()))


def test_a_long_item_is_decoded_piece_by_piece_and_tells_each() -> None:
    session, jobs = committed(noise(45))
    told, sizes, outputs = [], [], []
    for index, text in enumerate((" One", "two.", " Three")):
        (job,) = jobs
        assert (job.piece, job.settled) == (index, "")
        sizes.append(job.samples.size)
        outputs = session.receive_hypothesis("item_1", said(text))
        told += [output.delta for output in outputs if isinstance(output, TranscriptionDelta)]
        jobs = finals_of(outputs)
    assert told == ["One", " two.", " Three"]
    assert isinstance(outputs[-1], TranscriptionCompleted)
    assert outputs[-1].transcript == "One two. Three"
    assert sum(sizes) == 45 * SAMPLE_RATE
    assert jobs == []


def test_a_piece_that_has_ended_is_told_while_the_item_is_open() -> None:
    session = session_with(turn_detection=None)
    (job,) = finals_of(speak(session, *[0.9] * 20, *[0.0] * 40))
    assert job.stream_id == "item_1"
    (delta,) = session.receive_hypothesis("item_1", said(" One."))
    assert delta == TranscriptionDelta(item_id="item_1", delta="One.")
    (job,) = finals_of(speak(session, *[0.9] * 20, *[0.0] * 40))
    assert (job.piece, job.settled) == (1, "")
    assert session.receive_hypothesis("item_1", said(" Two."))[0].delta == " Two."
    assert session.receive_event(Commit())[-1].transcript == "One. Two."


def test_a_piece_that_fails_ends_the_item() -> None:
    session, (job,) = committed(noise(45))
    (next_job,) = finals_of(session.receive_hypothesis("item_1", said(" One")))
    (failed,) = session.receive_failure(next_job, EngineError("broken"))
    assert isinstance(failed, TranscriptionFailed)
    assert session.receive_hypothesis("item_1", said(" late")) == []
    assert isinstance(job, Decode)


def test_a_piece_that_fails_before_the_commit_fails_the_item_at_its_commit() -> None:
    session = session_with(turn_detection=None)
    (job,) = finals_of(speak(session, *[0.9] * 20, *[0.0] * 40))
    assert session.receive_failure(job, EngineError("broken")) == []
    assert speak(session, *[0.9] * 20, *[0.0] * 40) == []
    *_, failed = session.receive_event(Commit())
    assert isinstance(failed, TranscriptionFailed)
    assert session.is_idle


def test_a_recording_longer_than_a_piece_is_read_whole() -> None:
    session, jobs = committed(two_cities())
    engine = RollingEngine(MoonshineModel.embedded())
    outputs: list[Output] = []
    while jobs:
        (hypothesis,) = engine.decode(jobs)
        outputs = session.receive_hypothesis("item_1", hypothesis)
        jobs = finals_of(outputs)
    text = outputs[-1].transcript.lower()
    assert text.startswith("it was the best of times")
    for phrase in ("age of wisdom", "season of light", "winter of despair", "superlative degree of comparison"):
        assert phrase in text

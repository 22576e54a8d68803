"""What is measured from when to when."""

from __future__ import annotations

import pytest
from bench.records import CHUNK_S, WORDS, added, clip, committed, completed, delta, record, started, stopped

from auricle.bench.corpus import Word
from auricle.bench.latency import align, items_of, latencies, matched_words, told_words, transcript
from auricle.bench.session_run import Record


def values_ms(found: Record, measure: str) -> list[float]:
    return [round(1000 * latency.value_s, 3) for latency in latencies(found) if latency.measure == measure]


def spoken() -> Record:
    """Told while it is said: "It was" at 1.2 s, the rest at 1.9 s; the turn ended with the audio up to 1.5 s."""
    return record(
        (0.4, started()),
        (1.2, delta("It was th")),
        (1.6, stopped(audio_end_ms=1500)),
        (1.7, committed()),
        (1.7, added()),
        (1.9, delta("e best.")),
        (2.0, completed("It was the best.")),
    )


@pytest.mark.parametrize(
    ("audio_s", "chunk"), [(0, 0), (0.05, 0), (0.1, 0), (0.1001, 1), (0.3, 2), (0.7, 6), (1.95, 19), (2.0, 19)]
)
def test_audio_is_sent_with_the_chunk_that_ends_it(audio_s: float, chunk: int):
    assert record().sent_at(audio_s) == 100 + CHUNK_S * chunk


def test_audio_that_was_not_sent_has_no_time():
    assert record().sent_at(2.01) is None


def test_latencies_are_from_the_time_the_audio_was_sent():
    found = spoken()
    # Speech starts at 0.2 s: the first chunk with any of it is sent at 0.2 s.
    assert values_ms(found, "first_delta") == [1000]
    # The words end at 0.3, 0.5, 0.6 and 1.0 s: sent at 0.2, 0.4, 0.5 and 0.9. "the" is whole with the second delta.
    assert values_ms(found, "word") == [1000, 800, 1400, 1000]
    assert values_ms(found, "last_word_to_completed") == [1100]
    assert values_ms(found, "stop_to_completed") == [600]
    assert values_ms(found, "committed_to_completed") == [300]
    assert values_ms(found, "commit_to_completed") == []


def test_a_late_chunk_makes_nothing_look_slow():
    found = spoken()
    found.sent_s = [sent_s + 0.5 for sent_s in found.sent_s]
    assert values_ms(found, "stop_to_completed") == [100]


def test_a_commit_by_hand_is_measured_from_its_sending():
    found = record((2.2, committed()), (2.2, added()), (2.5, delta("It")), (2.6, completed("It")), commit_s=102.0)
    assert values_ms(found, "commit_to_completed") == [600]
    assert values_ms(found, "committed_to_completed") == [400]
    assert values_ms(found, "stop_to_completed") == []
    assert values_ms(found, "last_word_to_completed") == []


def test_without_known_words_only_the_servers_own_events_count():
    found = spoken()
    found.clip = clip(words=(), speech_s=None)
    assert {latency.measure for latency in latencies(found)} == {"stop_to_completed", "committed_to_completed"}


def test_what_is_cut_or_failed_gives_no_word_latencies():
    found = spoken()
    found.is_cut = True
    assert values_ms(found, "word") == []
    assert list(latencies(record((1.0, started()), (1.6, stopped()), (1.7, committed())))) == []


def test_text_that_was_taken_back_is_told_when_the_item_is_complete():
    found = record((1.7, committed()), (1.8, delta("It is the")), (2.0, completed("It was the")))
    [item] = items_of(found)
    assert told_words(item) == [("it", 101.8), ("was", 102.0), ("the", 102.0)]


def test_transcripts_come_in_the_order_of_the_commits():
    found = record(
        (1.0, committed("a")), (1.1, committed("b", "a")), (1.2, completed("two", "b")), (1.3, completed("one", "a"))
    )
    assert transcript(found) == "one two"


def test_wrong_and_invented_words_are_left_out_of_the_word_latencies():
    told = [("it", 1.0), ("is", 2.0), ("the", 3.0), ("very", 4.0), ("best", 5.0)]
    assert [(word.text, at_s) for word, at_s in matched_words(WORDS, told)] == [
        ("It", 1.0),
        ("the", 3.0),
        ("best", 5.0),
    ]


def test_digits_match_however_they_are_written():
    said = (Word("four", 0, 1), Word("oh", 1, 2), Word("2", 2, 3))
    found = record((1.0, committed()), (2.0, delta("402")), (2.0, completed("402")))
    [item] = items_of(found)
    told = told_words(item, "digits")
    assert [word.text for word, _ in matched_words(said, told, "digits")] == ["four", "oh", "2"]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "pairs"),
    [
        ("a b c", "a b c", [(0, 0), (1, 1), (2, 2)]),
        ("a b c", "a c", [(0, 0), (2, 1)]),
        ("a c", "a b c", [(0, 0), (1, 2)]),
        ("a b c", "a x c", [(0, 0), (2, 2)]),
        ("a b", "", []),
        ("", "a b", []),
        ("the cat the dog", "the dog", [(2, 0), (3, 1)]),
    ],
)
def test_alignment_has_the_fewest_errors(reference: str, hypothesis: str, pairs: list[tuple[int, int]]):
    assert align(reference.split(), hypothesis.split()) == pairs

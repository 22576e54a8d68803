"""A recording's segments in each format."""

from __future__ import annotations

from itertools import pairwise

from auricle.protocol.events import SpokenWord
from auricle.transcribe import Segment
from auricle.transcript_formats import LINE_LENGTH, srt, verbose_json, vtt

SEGMENTS = [Segment(0.0, 1.5, "Yes & no, a < b.", ()), Segment(3661.0004, 3662.9996, "And so on.", ())]


def test_subrip() -> None:
    assert srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nYes & no, a < b.\n\n2\n01:01:01,000 --> 01:01:03,000\nAnd so on.\n"
    )
    assert srt([]) == ""


def test_webvtt_escapes_its_own_signs() -> None:
    assert vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nYes &amp; no, a &lt; b.\n\n"
        "01:01:01.000 --> 01:01:03.000\nAnd so on.\n"
    )
    assert vtt([]) == "WEBVTT\n"


def test_a_long_segment_becomes_several_cues_that_share_its_time() -> None:
    text = " ".join(f"word{number}" for number in range(60))
    cues = [cue.splitlines() for cue in srt([Segment(10.0, 30.0, text, ())]).split("\n\n")]
    assert len(cues) == 5
    assert " ".join(" ".join(cue[2:]) for cue in cues) == text
    assert all(len(line) <= LINE_LENGTH for cue in cues for line in cue[2:])
    assert all(len(cue) <= 4 for cue in cues)
    times = [cue[1].split(" --> ") for cue in cues]
    assert (times[0][0], times[-1][1]) == ("00:00:10,000", "00:00:30,000")
    assert all(before[1] == after[0] for before, after in pairwise(times))


def spoken(text: str, step_s: float = 1.0) -> Segment:
    """A word begins every so often and takes half of that."""
    words = [
        SpokenWord(word=word, start=number * step_s, end=(number + 0.5) * step_s)
        for number, word in enumerate(text.split())
    ]
    return Segment(0.0, len(words) * step_s, text, (), words=tuple(words))


def test_cues_go_by_the_times_of_words_where_those_are_known() -> None:
    text = " ".join(f"word{number:02}" for number in range(30))
    cues = [cue.splitlines() for cue in srt([spoken(text)]).split("\n\n")]
    assert [cue[1] for cue in cues] == [
        "00:00:00,000 --> 00:00:11,500",
        "00:00:12,000 --> 00:00:23,500",
        "00:00:24,000 --> 00:00:29,500",
    ]


def test_a_cue_that_begins_amid_a_word_takes_its_share_of_the_words_time() -> None:
    cues = [cue.splitlines() for cue in srt([spoken("x" * 168, step_s=4.0)]).split("\n\n")]
    assert [cue[1] for cue in cues] == ["00:00:00,000 --> 00:00:01,000", "00:00:01,000 --> 00:00:02,000"]


def test_words_are_told_as_openai_tells_them() -> None:
    segments = [spoken("“Well-known,” isn't it?"), spoken("5% – no.")]
    body = verbose_json(segments, 4.0, granularities=["word"])
    assert [word["word"] for word in body["words"]] == ["Well-known", "isn't", "it", "5%", "no"]
    assert body["words"][1] == {"word": "isn't", "start": 1.0, "end": 1.5}
    assert "segments" not in body
    assert "words" not in verbose_json(segments, 4.0)


def test_a_word_longer_than_a_line_is_cut() -> None:
    assert max(map(len, srt([Segment(0, 1, "x" * 100, ())]).splitlines())) <= LINE_LENGTH

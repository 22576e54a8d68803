"""A recording's segments in each format."""

from __future__ import annotations

from itertools import pairwise

from auricle.transcribe import Segment
from auricle.transcript_formats import LINE_LENGTH, srt, vtt

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


def test_a_word_longer_than_a_line_is_cut() -> None:
    assert max(map(len, srt([Segment(0, 1, "x" * 100, ())]).splitlines())) <= LINE_LENGTH

"""Segments as subtitles: SubRip (`.srt`) and WebVTT (`.vtt`, https://www.w3.org/TR/webvtt1/). Pure text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from auricle.transcribe import Segment

LINE_LENGTH = 42
"""Characters in a line, as broadcasters have it."""
_LINES = 2


def srt(segments: Sequence[Segment]) -> str:
    """A SubRip file."""
    cues = (
        f"{number}\n{_clock(start_s, ',')} --> {_clock(end_s, ',')}\n{text}\n"
        for number, (start_s, end_s, text) in enumerate(_cues(segments), 1)
    )
    return "\n".join(cues)


def vtt(segments: Sequence[Segment]) -> str:
    """A WebVTT file."""
    escaped = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    cues = (
        f"{_clock(start_s, '.')} --> {_clock(end_s, '.')}\n{text.translate(escaped)}\n"
        for start_s, end_s, text in _cues(segments)
    )
    return "\n".join(["WEBVTT\n", *cues])


def _cues(segments: Sequence[Segment]) -> Iterator[tuple[float, float, str]]:
    """Begin, end and lines of each subtitle. A long segment becomes several: its time is shared out by letters."""
    for segment in segments:
        parts = textwrap.wrap(segment.text, LINE_LENGTH * _LINES)
        per_letter_s = (segment.end_s - segment.start_s) / max(sum(map(len, parts)), 1)
        start_s = segment.start_s
        for part in parts:
            end_s = start_s + per_letter_s * len(part)
            yield start_s, end_s, "\n".join(textwrap.wrap(part, LINE_LENGTH))
            start_s = end_s


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"

"""A recording's segments as plain text, JSON, and subtitles: SubRip (`.srt`) and WebVTT (`.vtt`).

Pure text: knows no files and no HTTP. WebVTT: https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

import math
import textwrap
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from auricle.protocol.config import without_region
from auricle.protocol.languages import language_name
from auricle.transcribe import Segment

LINE_LENGTH = 42
"""Characters in a line, as broadcasters have it."""
_LINES = 2


def plain(segments: Sequence[Segment]) -> str:
    """The text, in one line."""
    return " ".join(segment.text for segment in segments)


def verbose_json(segments: Sequence[Segment], seconds: float, language: str | None = None) -> dict[str, Any]:
    """OpenAI's `verbose_json` of a recording of so many seconds.

    `language` is what was said to be spoken; else it is that of most segments.
    """
    found = Counter(segment.language for segment in segments if segment.language).most_common(1)
    spoken = without_region(language) if language else found[0][0] if found else "en"
    return {
        "task": "transcribe",
        "language": language_name(spoken),
        "duration": round(seconds, 3),
        "text": plain(segments),
        "segments": [_verbose_segment(number, segment) for number, segment in enumerate(segments)],
        "usage": {"type": "duration", "seconds": math.ceil(seconds)},
    }


def _verbose_segment(number: int, segment: Segment) -> dict[str, Any]:
    """A segment with Whisper's fields. `tokens` are a tokenizer's own numbers, which mean nothing to others."""
    text = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": sum(token.logprob for token in segment.tokens) / max(len(segment.tokens), 1),
        "compression_ratio": len(text) / len(zlib.compress(text)),  # as Whisper's authors compute it
        "no_speech_prob": 0.0,  # nothing else is decoded
    }


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

"""A recording's segments as plain text, JSON, and subtitles: SubRip (`.srt`) and WebVTT (`.vtt`).

Pure text: knows no files and no HTTP. WebVTT: https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

import math
import textwrap
import zlib
from bisect import bisect
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal

from auricle.protocol.config import without_region
from auricle.protocol.languages import language_name
from auricle.transcribe import Segment

LINE_LENGTH = 42
"""Characters in a line, as broadcasters have it."""
_LINES = 2
SUBTITLES = ("srt", "vtt")
"""Formats whose times are the better for those of words."""

_PUNCTUATION = " .,;:!?…-–—\"'“”„‘’«»¿¡()[]{}。、，；：！？「」『』・"

Granularity = Literal["word", "segment"]
BY_DEFAULT: tuple[Granularity, ...] = ("segment",)


def plain(segments: Sequence[Segment]) -> str:
    """The text, in one line."""
    return " ".join(segment.text for segment in segments)


def verbose_json(
    segments: Sequence[Segment],
    seconds: float,
    language: str | None = None,
    granularities: Collection[Granularity] = BY_DEFAULT,
    *,
    translated: bool = False,
) -> dict[str, Any]:
    """OpenAI's `verbose_json` of a recording of so many seconds.

    `language` is what was said to be spoken; else it is that of most segments. That of a translation is English.
    `granularities` says of what it has times: for `word` the segments have theirs.
    """
    if translated:
        language = "en"
    found = Counter(segment.language for segment in segments if segment.language).most_common(1)
    spoken = without_region(language) if language else found[0][0] if found else "en"
    body: dict[str, Any] = {
        "task": "translate" if translated else "transcribe",
        "language": language_name(spoken),
        "duration": round(seconds, 3),
        "text": plain(segments),
    }
    if "word" in granularities:
        body["words"] = list(_verbose_words(segments))
    if "segment" in granularities:
        body["segments"] = [_verbose_segment(number, segment) for number, segment in enumerate(segments)]
    return body | {"usage": {"type": "duration", "seconds": math.ceil(seconds)}}


def _verbose_words(segments: Sequence[Segment]) -> Iterator[dict[str, Any]]:
    """The words as OpenAI tells them: without the punctuation around them."""
    for segment in segments:
        for word in segment.words or ():
            if text := word.word.strip(_PUNCTUATION):
                yield {"word": text, "start": word.start, "end": word.end}


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
    """Begin, end and lines of each subtitle. A long segment becomes several."""
    for segment in segments:
        clock = _LetterClock(segment)
        begin = 0
        for part in textwrap.wrap(segment.text, LINE_LENGTH * _LINES):
            end = begin + len("".join(part.split()))
            yield clock.begin_s(begin), clock.end_s(end), "\n".join(textwrap.wrap(part, LINE_LENGTH))
            begin = end


class _LetterClock:
    """When each letter of a segment is said, spaces not counted: its word's time is shared out evenly.

    Where the times of words aren't known, the whole segment counts as one. Lives while a segment is written.
    """

    def __init__(self, segment: Segment) -> None:
        whole = [(segment.text, segment.start_s, segment.end_s)]
        self._words = [(word.word, word.start, word.end) for word in segment.words or ()] or whole
        self._ends = list(accumulate(len("".join(text.split())) for text, _, _ in self._words))

    def begin_s(self, letter: int) -> float:
        """When a letter begins."""
        index = min(bisect(self._ends, letter), len(self._words) - 1)
        return self._at_s(index, letter)

    def end_s(self, letter: int) -> float:
        """When the letter before ends."""
        return self._at_s(min(bisect(self._ends, letter - 1), len(self._words) - 1), letter)

    def _at_s(self, index: int, letter: int) -> float:
        _, start_s, end_s = self._words[index]
        begin = self._ends[index - 1] if index else 0
        return start_s + (end_s - start_s) * (letter - begin) / max(self._ends[index] - begin, 1)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"

"""The recordings that a benchmark plays: a folder with a manifest, or the clip in the embedded model's wheel.

Knows no server and no scoring.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from auricle.audio.files import read_audio
from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
from auricle.audio.resample import Resampler
from auricle.errors import AuricleError

MANIFEST = "manifest.jsonl"

TWO_CITIES = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to Heaven, we were all going direct the other way - in short, the period was "
    "so far like the present period, that some of its noisiest authorities insisted on its being received, for good "
    "or for evil, in the superlative degree of comparison only."
)
"""Charles Dickens, A Tale of Two Cities (1859), the first paragraph; in the public domain."""
_TWO_CITIES_SPEECH_S = (1.20, 43.06)
"""Where the level of the clip first (but for a click at 0.55 s) and last exceeds -45 dB."""


@dataclass(frozen=True)
class Word:
    """A word of the reference and where in the recording it is said."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Clip:
    """A recording and what is known of it."""

    id: str
    path: Path
    kind: str
    text: str
    """What is said, as a reference; empty where nobody speaks."""
    language: str | None = None
    scoring: str | None = None
    """`digits`: only digits are compared."""
    group: str = ""
    """The clips that it is scored with."""
    words: tuple[Word, ...] = ()
    """From a forced alignment; empty where there is none."""
    speech_s: tuple[float, float] | None = None
    """Where speech starts and ends, if known."""

    def wire_bytes(self, audio_format: AudioFormat, silence_s: float) -> bytes:
        """The recording and silence after it, coded for the wire. Raises ClientError: the file can't be read."""
        return wire_bytes(np.concatenate([read_audio(self.path), silence(silence_s)]), audio_format)


def silence(seconds: float) -> Samples:
    """Zeros at 16 kHz."""
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def wire_bytes(samples: Samples, audio_format: AudioFormat) -> bytes:
    """Audio at 16 kHz as a client would send it."""
    resampler = Resampler(SAMPLE_RATE, audio_format.rate_hz)
    return encode(np.concatenate([resampler.resample(samples), resampler.flush()]), audio_format)


def embedded_clips() -> list[Clip]:
    """The clip in the wheel of the embedded model: 44 s, the opening of A Tale of Two Cities."""
    spec = find_spec("moonshine_voice")
    if spec is None or not spec.submodule_search_locations:
        raise AuricleError("The package moonshine-voice, which has a recording, is not installed: give a folder.")
    path = Path(spec.submodule_search_locations[0]) / "assets" / "two_cities.wav"
    return [
        Clip(path.stem, path, "clean", TWO_CITIES, language="en", group="clean", speech_s=_TWO_CITIES_SPEECH_S),
    ]


def load_clips(folder: Path) -> list[Clip]:
    """All clips of a folder's manifest. Raises AuricleError: there is none, or a line of it is wrong."""
    try:
        lines = (folder / MANIFEST).read_text().splitlines()
    except OSError as error:
        raise AuricleError(f"{folder / MANIFEST} can't be read: {error.strerror}.") from None
    clips = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            clips.append(_clip(folder, json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuricleError(f"{folder / MANIFEST}, line {number}: {_reason(error)}.") from None
    if not clips:
        raise AuricleError(f"{folder / MANIFEST} has no clips.")
    return clips


def of_kinds(clips: Sequence[Clip], kinds: Iterable[str]) -> list[Clip]:
    """The clips of some kinds; of all kinds if none is named. Raises AuricleError: there are no clips of a kind."""
    kinds = list(kinds)
    known = list(dict.fromkeys(clip.kind for clip in clips))
    for kind in kinds:
        if kind not in known:
            raise AuricleError(f"There are no recordings of the kind {kind!r}, only of {', '.join(known)}.")
    return [clip for clip in clips if clip.kind in kinds or not kinds]


def _clip(folder: Path, line: dict[str, Any]) -> Clip:
    words = tuple(Word(text, float(start_s), float(end_s)) for text, start_s, end_s in line.get("words") or ())
    kind, scoring = line.get("kind", "speech"), line.get("scoring")
    suffix = ""
    if scoring == "digits":
        suffix = " digits"
    elif "snr_db" in line:
        suffix = f" {line['snr_db']} dB"
    elif "medium confidence" in line.get("text_source", ""):
        # The reference is not sure enough to be counted with the others.
        suffix = " (doubtful text)"
    return Clip(
        id=line.get("id", line["file"]),
        path=folder / line["file"],
        kind=kind,
        text=line.get("text") or "",
        language=line.get("language"),
        scoring=scoring,
        group=kind + suffix,
        words=words,
        speech_s=(words[0].start_s, words[-1].end_s) if words else None,
    )


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)

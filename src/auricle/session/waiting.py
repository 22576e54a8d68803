"""What a client said that must wait until speech detection has heard all audio before it."""

from __future__ import annotations

from collections import deque

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples
from auricle.protocol.events import Append, ClientEvent, ErrorEvent

Entry = ClientEvent | Samples | ErrorEvent
"""What can stand in line: events, audio, and errors that are told in their turn."""

EVENT_WEIGHT_S = 0.1
"""What an event without audio that waits counts for in the backlog, so that events are bounded too."""


class WaitingLine:
    """Entries in their order, and how much audio they bring. Owned by one session."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Entry, int]] = deque()
        self._samples = 0

    @property
    def first(self) -> Entry | None:
        """What is next; None: nobody waits."""
        return self._entries[0][0] if self._entries else None

    @property
    def weight_s(self) -> float:
        """Seconds of audio in the line."""
        return self._samples / SAMPLE_RATE

    def add(self, entry: Entry, audio_format: AudioFormat) -> None:
        """Put an entry at the end. Its audio, if any, is in `audio_format`."""
        samples = round(_weight_s(entry, audio_format) * SAMPLE_RATE)
        self._entries.append((entry, samples))
        self._samples += samples

    def take(self) -> Entry:
        """Remove the first entry."""
        entry, samples = self._entries.popleft()
        self._samples -= samples
        return entry


def _weight_s(entry: Entry, audio_format: AudioFormat) -> float:
    match entry:
        case Append():
            return duration_s(entry, audio_format)
        case np.ndarray():
            return entry.size / SAMPLE_RATE
        case _:
            return EVENT_WEIGHT_S


def duration_s(event: Append, audio_format: AudioFormat) -> float:
    """The length of an event's audio in seconds."""
    return len(event.audio) / audio_format.bytes_per_ms / 1000

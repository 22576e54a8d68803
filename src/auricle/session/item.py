"""One utterance of a session, from its commit on."""

from __future__ import annotations

import base64
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
from auricle.audio.resample import Resampler
from auricle.protocol.config import Transcription
from auricle.protocol.events import InputAudio, Item, ServerEvent
from auricle.session.speech import SpeechPiece
from auricle.session.transcript import ItemTranscript

MAX_AUDIO_LENGTH = 900_000
"""Characters of base64 in one event. Clients on the `websockets` library refuse events over 1 MiB."""


@dataclass(eq=False)
class SessionItem:
    """What a session knows of one of its items."""

    id: str
    samples: Samples
    """The item's audio, kept until its transcript is complete and for a while after; then empty."""
    duration_samples: int
    options: Transcription | None
    """The transcription settings at the time of the commit; None: no text is wanted."""
    with_logprobs: bool
    transcript: ItemTranscript = field(default_factory=ItemTranscript)
    pieces: deque[SpeechPiece] = field(default_factory=deque)
    """What is still to be decoded of it, in order; the first is being decoded."""
    unsent: list[ServerEvent] = field(default_factory=list)
    """Events that wait until the items before this one are finished."""
    is_finished: bool = False

    def drop_audio(self) -> None:
        """Forget the samples. A copy of none, since a slice would keep them all alive."""
        self.samples = self.samples[:0].copy()

    def on_wire(self, audio_format: AudioFormat | None = None) -> Item:
        """The item as the client sees it, with its audio in `audio_format` where that is kept and fits in one event."""
        transcript = self.transcript.text if self.is_finished and self.options else None
        audio = self._encoded(audio_format) if audio_format else None
        return Item(id=self.id, content=(InputAudio(transcript=transcript, audio=audio),))

    def _encoded(self, audio_format: AudioFormat) -> str | None:
        length = self.samples.size / SAMPLE_RATE * 1000 * audio_format.bytes_per_ms * 4 / 3
        if not self.samples.size or length > MAX_AUDIO_LENGTH:
            return None
        resampler = Resampler(SAMPLE_RATE, audio_format.rate_hz)
        samples = np.concatenate([resampler.resample(self.samples), resampler.flush()])
        return base64.b64encode(encode(samples, audio_format)).decode()

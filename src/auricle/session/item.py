"""One utterance of a session, from its first sound on."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
from auricle.audio.resample import Resampler
from auricle.errors import EngineError
from auricle.protocol.config import LOGPROBS, WORDS, SessionConfig, Transcription
from auricle.protocol.events import InputAudio, Item, ServerEvent
from auricle.session.decoding import ItemDecoding

MAX_AUDIO_LENGTH = 900_000
"""Characters of base64 in one event. Clients on the `websockets` library refuse events over 1 MiB."""

NO_SAMPLES: Samples = np.zeros(0, np.float32)


@dataclass(eq=False)
class SessionItem:
    """What a session knows of one of its items."""

    id: str
    start: int
    """Position of its first sample."""
    decoding: ItemDecoding
    options: Transcription | None
    """The settings under which it is transcribed; None: no text is wanted."""
    with_logprobs: bool
    samples: Samples = field(default_factory=lambda: NO_SAMPLES)
    """The item's audio, from its commit until its transcript is complete and for a while after."""
    duration_samples: int = 0
    """Known from the commit on."""
    unsent: list[ServerEvent] = field(default_factory=list)
    """Events that wait until the items before this one are finished."""
    failure: EngineError | None = None
    """Why it can have no text."""
    is_finished: bool = False

    def commit(self, samples: Samples) -> None:
        """The utterance is over; `samples` is all of it."""
        self.samples = samples
        self.duration_samples = samples.size
        self.decoding.read = self._read
        self.decoding.end(self.start + samples.size)

    def give_up(self, error: EngineError) -> None:
        """No further answers are waited for. A text that is whole is told all the same, without times of its words."""
        self.decoding.words.receive_failure()
        if not self.decoding.is_done:
            self.failure = error

    def go_with(self, config: SessionConfig) -> None:
        """An open item goes with the session's settings, but its text is one model's from the first word on."""
        self.with_logprobs = LOGPROBS in (config.include or ())
        self.decoding.words.is_wanted = WORDS in (config.include or ())
        if self.options != config.transcription and not self.decoding.has_told:
            self.options = config.transcription
            self.decoding.forget_guesses()

    def _read(self, start: int, end: int) -> Samples:
        return self.samples[start - self.start : end - self.start]

    def drop_audio(self) -> None:
        """Forget the samples."""
        self.samples = NO_SAMPLES

    def on_wire(self, audio_format: AudioFormat | None = None) -> Item:
        """The item as the client sees it, with its audio in `audio_format` where that is kept and fits in one event."""
        transcript = self.decoding.transcript.text if self.is_finished and self.options else None
        audio = self._encoded(audio_format) if audio_format else None
        return Item(id=self.id, content=(InputAudio(transcript=transcript, audio=audio),))

    def _encoded(self, audio_format: AudioFormat) -> str | None:
        length = self.samples.size / SAMPLE_RATE * 1000 * audio_format.bytes_per_ms * 4 / 3
        if not self.samples.size or length > MAX_AUDIO_LENGTH:
            return None
        resampler = Resampler(SAMPLE_RATE, audio_format.rate_hz)
        samples = np.concatenate([resampler.resample(self.samples), resampler.flush()])
        return base64.b64encode(encode(samples, audio_format)).decode()

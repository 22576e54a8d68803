"""Streams from a model that only transcribes whole utterances. Knows neither the model nor the session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import Decode, Hypothesis, OfflineModel, Token

DEFAULT_MAX_SEGMENT_S = 20.0
CUT_FROM, CUT_TO = 0.4, 0.75
"""Where a cut is looked for, as shares of the longest segment: at 8 to 15 s of 20 s, so that 5 s are left at least.

With Moonshine the best of those tried: WER 3.9 % on audio of over a minute (from 10 to 15 s: 4.2, from 15 to 20: 4.7).
Clips of up to 20 s stay whole: cutting those of over 15 s raises the WER of all clean clips from 7.6 to 8.3 %.
"""
ENERGY_FRAME_S = 0.02
SMOOTHING_FRAMES = 9
"""Energy is averaged over 180 ms, so that the middle of a pause wins over the closure of a stop consonant."""


class RollingEngine:
    """Collects the audio of each stream and transcribes it when the stream ends. Implements `Engine`.

    Owns the audio of the streams that go on. Called by one thread only.
    """

    def __init__(self, model: OfflineModel, *, max_segment_s: float = DEFAULT_MAX_SEGMENT_S) -> None:
        """The model never gets more than `max_segment_s` seconds at once."""
        self._model = model
        self._max_segment_s = max_segment_s
        self._audio: dict[str, list[Samples]] = {}

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        """See `Engine`. Only final jobs get text.

        Raises EngineError if the model fails; the final streams of the batch are forgotten then too.
        """
        segments_of_job = [self._take_segments(job) for job in jobs]
        segments = [segment for job_segments in segments_of_job for segment in job_segments]
        options = [job.options for job, own in zip(jobs, segments_of_job, strict=True) for _ in own]
        results = iter(self._model.transcribe(segments, options) if segments else ())
        return [Hypothesis(join_segments([next(results) for _ in own])) for own in segments_of_job]

    def release(self, stream_id: str) -> None:
        """Forget a stream; unknown ones are ignored."""
        self._audio.pop(stream_id, None)

    def _take_segments(self, job: Decode) -> list[Samples]:
        """Add the job's audio to its stream; if it is final, take the whole stream out, cut into segments."""
        chunks = self._audio.setdefault(job.stream_id, [])
        if job.samples.size:
            chunks.append(job.samples)
        if not job.is_final:
            return []
        del self._audio[job.stream_id]
        return split_at_pauses(np.concatenate(chunks), self._max_segment_s) if chunks else []


def split_at_pauses(samples: Samples, max_segment_s: float) -> list[Samples]:
    """Cut audio, float32 mono 16 kHz, into pieces of at most `max_segment_s` seconds, at the quietest places."""
    max_samples = int(max_segment_s * SAMPLE_RATE)
    segments = []
    while samples.size > max_samples:
        earliest = int(CUT_FROM * max_samples)
        cut = earliest + quietest_sample(samples[earliest : int(CUT_TO * max_samples)])
        segments.append(samples[:cut])
        samples = samples[cut:]
    return [*segments, samples]


def quietest_sample(samples: Samples) -> int:
    """The middle of the quietest 180 ms; the middle of everything if `samples` is shorter than that."""
    frame_samples = int(ENERGY_FRAME_S * SAMPLE_RATE)
    frames = samples[: samples.size // frame_samples * frame_samples].reshape(-1, frame_samples)
    if len(frames) < SMOOTHING_FRAMES:
        return samples.size // 2
    energy = np.convolve((frames**2).mean(axis=1), np.ones(SMOOTHING_FRAMES), "valid")
    quietest = (
        energy.size - 1 - int(energy[::-1].argmin())
    )  # the last of equals, so that silence is not cut into scraps
    return (quietest + SMOOTHING_FRAMES // 2) * frame_samples + frame_samples // 2


def join_segments(segments: Sequence[tuple[Token, ...]]) -> tuple[Token, ...]:
    """The tokens of all segments, with a space where a segment follows another's text without one."""
    joined: list[Token] = []
    for tokens in segments:
        if joined and tokens and not tokens[0].text.startswith(" "):
            first = tokens[0]
            tokens = (Token(" " + first.text, first.logprob, first.start_s, first.end_s), *tokens[1:])
        joined.extend(tokens)
    return tuple(joined)

"""Streams from a model that only transcribes whole utterances. Knows neither the model nor the session."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from auricle.audio.formats import Samples
from auricle.engines.base import Decode, Hypothesis, OfflineModel


class RollingEngine:
    """Collects the audio of each stream and transcribes it when the stream ends. Implements `Engine`.

    Owns the audio of the streams that go on. Called by one thread only.
    """

    def __init__(self, model: OfflineModel) -> None:
        self._model = model
        self._audio: dict[str, list[Samples]] = {}

    def decode(self, jobs: Sequence[Decode]) -> list[Hypothesis]:
        """See `Engine`. Only final jobs get text.

        Raises EngineError if the model fails; the final streams of the batch are forgotten then too.
        """
        for job in jobs:
            self._audio.setdefault(job.stream_id, []).append(job.samples)
        final = [job for job in jobs if job.is_final]
        utterances = [np.concatenate(self._audio.pop(job.stream_id)) for job in final]
        texts = self._model.transcribe(utterances, [job.options for job in final]) if final else []
        found = {job.stream_id: Hypothesis(tokens) for job, tokens in zip(final, texts, strict=True)}
        return [found.get(job.stream_id, Hypothesis()) for job in jobs]

    def release(self, stream_id: str) -> None:
        """Forget a stream; unknown ones are ignored."""
        self._audio.pop(stream_id, None)

"""Collecting streams, with a model that answers with lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from auricle.audio.formats import Samples
from auricle.engines.base import Decode, EngineError, Hypothesis, Token, Transcription
from auricle.engines.rolling import RollingEngine

OPTIONS = Transcription(model="m")


class LengthModel:
    """Answers each utterance with its first sample and its length, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, list[Transcription]]] = []

    def transcribe(self, utterances: Sequence[Samples], options: Sequence[Transcription]) -> list[tuple[Token, ...]]:
        self.calls.append((len(utterances), list(options)))
        return [(Token(f" {samples[0]:g}", -1), Token(f"x{samples.size}", -2)) for samples in utterances]


class FailingModel:
    def transcribe(self, utterances: Sequence[Samples], options: Sequence[Transcription]) -> list[tuple[Token, ...]]:
        raise EngineError("out of memory")


def audio(value: float, length: int) -> Samples:
    return np.full(length, value, np.float32)


def job(stream_id: str, samples: Samples, *, is_final: bool = False, options: Transcription = OPTIONS) -> Decode:
    return Decode(stream_id, options, samples, is_final)


def text_of(hypothesis: Hypothesis) -> str:
    assert hypothesis.tentative == ()
    return "".join(token.text for token in hypothesis.committed)


def test_text_comes_with_the_final_job_and_streams_do_not_mix() -> None:
    model = LengthModel()
    engine = RollingEngine(model)
    assert engine.decode([job("a", audio(1, 100)), job("b", audio(2, 50))]) == [Hypothesis(), Hypothesis()]
    assert model.calls == []
    results = engine.decode([job("a", audio(1, 11), is_final=True), job("b", audio(2, 7))])
    assert [text_of(result) for result in results] == [" 1x111", ""]
    (last,) = engine.decode([job("b", audio(2, 0), is_final=True)])
    assert text_of(last) == " 2x57"


def test_all_final_jobs_go_to_the_model_in_one_call() -> None:
    model = LengthModel()
    other = Transcription(model="m", language="en")
    jobs = [
        job("a", audio(1, 24), is_final=True),
        job("b", audio(2, 40)),
        job("c", audio(3, 30), is_final=True, options=other),
    ]
    assert [text_of(result) for result in RollingEngine(model).decode(jobs)] == [" 1x24", "", " 3x30"]
    assert model.calls == [(2, [OPTIONS, other])]


@pytest.mark.parametrize("way", ["final", "release"])
def test_finished_and_released_streams_are_forgotten(way: str) -> None:
    engine = RollingEngine(LengthModel())
    engine.decode([job("a", audio(1, 100), is_final=way == "final")])
    engine.release("a")
    engine.release("unknown")
    (again,) = engine.decode([job("a", audio(5, 10), is_final=True)])
    assert text_of(again) == " 5x10"


def test_a_failure_of_the_model_is_passed_on_and_forgets_the_final_streams() -> None:
    engine = RollingEngine(FailingModel())
    with pytest.raises(EngineError, match="out of memory"):
        engine.decode([job("a", audio(1, 100), is_final=True)])
    with pytest.raises(EngineError):
        engine.decode([job("a", audio(1, 1), is_final=True)])

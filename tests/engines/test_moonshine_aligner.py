"""When words were said, by the embedded model's own attention."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from clips import two_cities

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import Align, Alignment, Context, EngineError, Token, Transcription
from auricle.engines.moonshine import MoonshineModel, embedded_folder
from auricle.engines.moonshine_aligner import MIN_SAMPLES, REMEMBERED_SAMPLES

FIRST, SECOND = two_cities()[SAMPLE_RATE : 5 * SAMPLE_RATE], two_cities()[5 * SAMPLE_RATE : 9 * SAMPLE_RATE]


@pytest.fixture
def model() -> MoonshineModel:
    return MoonshineModel.embedded()


def spans(model: MoonshineModel, samples: Samples, tokens: tuple[Token, ...]) -> np.ndarray:
    (found,) = model.align([Align("item_1", Transcription(), samples, tokens)])
    assert isinstance(found, Alignment)
    return np.array(found.spans)


def decoded(model: MoonshineModel, samples: Samples, context: Context | None = None) -> tuple[Token, ...]:
    return model.tokens(model.decode(samples, context=context))


def test_tokens_follow_each_other_without_gaps(model: MoonshineModel) -> None:
    found = spans(model, FIRST, decoded(model, FIRST))
    assert all(one[1] == other[0] for one, other in pairwise(found))
    assert FIRST.size - MIN_SAMPLES <= found[-1][1] <= FIRST.size


def test_a_word_is_found_where_it_is_said(model: MoonshineModel) -> None:
    """Half a second of silence put before the speech moves all words by that."""
    tokens = decoded(model, FIRST)
    later = spans(model, np.concatenate([np.zeros(SAMPLE_RATE // 2, np.float32), FIRST]), tokens)
    moved = later[1:, 0] - spans(model, FIRST, tokens)[1:, 0]
    assert np.abs(moved - SAMPLE_RATE // 2).max() < 0.06 * SAMPLE_RATE


def test_speech_that_was_heard_before_counts_for_nothing(model: MoonshineModel) -> None:
    """What is remembered was encoded behind the context; encoded anew, it is alone."""
    context = Context(FIRST, decoded(model, FIRST))
    tokens = decoded(model, SECOND, context)
    alone = spans(model, SECOND, tokens)
    decoded(model, SECOND, context)
    behind = spans(model, SECOND, tokens)
    assert not np.array_equal(alone, behind)  # it was remembered
    assert np.median(np.abs(alone - behind)) <= 0.03 * SAMPLE_RATE
    assert behind.min() >= 0
    assert behind.max() <= SECOND.size


def test_what_is_remembered_gives_what_is_encoded_anew(model: MoonshineModel) -> None:
    tokens = decoded(model, FIRST)
    anew = spans(model, FIRST, tokens)
    decoded(model, FIRST)
    assert np.array_equal(spans(model, FIRST, tokens), anew)


def test_nothing_is_remembered_before_times_are_asked_for_and_then_not_too_much(model: MoonshineModel) -> None:
    remembered = model.aligner._recent
    tokens = decoded(model, FIRST)
    assert not remembered
    spans(model, FIRST, tokens)
    noise = np.random.default_rng(0).normal(0, 0.01, 15 * SAMPLE_RATE).astype(np.float32)
    for number in range(12):
        decoded(model, noise[number:])
    assert 0 < sum(encoding.samples for encoding in remembered.values()) <= REMEMBERED_SAMPLES
    assert all(
        set(encoding.audio) == {"audio.0.key", "audio.0.value", "audio.1.key"} for encoding in remembered.values()
    )


@pytest.mark.parametrize(
    ("heads", "told"),
    [((), "not known which attention heads"), (((1, 8),), "no such attention head"), (((9, 0),), "times of words")],
)
def test_heads_that_are_not_there_are_a_clear_error(heads: tuple[tuple[int, int], ...], told: str) -> None:
    model = MoonshineModel(embedded_folder(), heads=heads)
    with pytest.raises(EngineError, match=told):
        spans(model, FIRST, (Token(" It", -0.1, ids=(300,)),))


def test_another_folder_needs_its_own_heads(tmp_path: Path) -> None:
    from auricle.engines.registry import catalog
    from auricle.settings import Settings

    models = {
        "moonshine/a": {"path": str(tmp_path)},
        "moonshine/b": {"path": str(tmp_path), "alignment_heads": [[1, 0]]},
    }
    directory = catalog(Settings(models=models)).directory
    assert [directory.has_word_times(name) for name in ("moonshine/a", "moonshine/b", "moonshine/tiny-en")] == [
        False,
        True,
        True,
    ]

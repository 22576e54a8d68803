"""Moonshine models of other sizes than the embedded one, against their sums done plainly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_moonshine
from tiny_moonshine import Sizes

from auricle.engines.base import EngineError, Transcription, Utterance
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.moonshine_graph import build_graphs

IDS = [1, 5, 9, 30, 22, 7, 41]


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(),
        Sizes(width=80, encoder_layers=3, decoder_layers=1, inner=96, vocabulary=70, rotary_pairs=4),
        Sizes(width=128, encoder_layers=1, decoder_layers=2, inner=512, vocabulary=50, rotary_pairs=8),
    ],
    ids=lambda sizes: f"{sizes.width}-{sizes.decoder_layers}",
)
def test_sizes_are_those_of_the_weights(tmp_path: Path, sizes: Sizes) -> None:
    reference = tiny_moonshine.build(tmp_path, sizes)
    model = MoonshineModel(tmp_path)
    model.load()
    samples = np.random.default_rng(3).normal(0, 0.1, 16_000).astype(np.float32)
    expected = reference.logits(samples, IDS)
    found = model.encode(samples).feed(IDS)
    assert found.shape == expected.shape == (len(IDS), sizes.vocabulary)
    # Ours quantises activations to 8 bits; whatever else is done otherwise shows more (see below).
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98
    predictor = model.encode(samples)
    one_by_one = np.concatenate([predictor.feed([number]) for number in IDS])
    assert np.corrcoef(one_by_one.ravel(), expected.ravel())[0, 1] > 0.98


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """Fewer heads, or positions that are told a little otherwise, are seen."""
    reference = tiny_moonshine.build(tmp_path)
    samples = np.random.default_rng(3).normal(0, 0.1, 16_000).astype(np.float32)
    expected = reference.logits(samples, IDS)
    for field, value in (("heads", 4), ("rotary_pairs", 15)):
        setattr(reference.sizes, field, value)
        other = reference.logits(samples, IDS)
        assert np.corrcoef(other.ravel(), expected.ravel())[0, 1] < 0.95, field
        reference.sizes = Sizes()


def test_a_whole_model_of_another_size_transcribes(tmp_path: Path) -> None:
    tiny_moonshine.build(tmp_path)
    model = MoonshineModel(tmp_path, language="es")
    samples = np.random.default_rng(5).normal(0, 0.1, 32_000).astype(np.float32)
    (found,) = model.transcribe([Utterance(samples, Transcription())])
    assert found.language == "es"
    assert all(token.text.startswith(" w") and token.logprob <= 0 for token in found.tokens)


@pytest.mark.parametrize(("language", "at_most"), [("en", 13 + 4), ("es-MX", 13 + 4), ("zh", 26 + 4), ("uk", 16 + 4)])
def test_some_languages_take_more_tokens(tmp_path: Path, language: str, at_most: int) -> None:
    """A model that never ends is stopped after so many for 2 s of audio."""
    tiny_moonshine.build(tmp_path, Sizes(vocabulary=2_000))
    model = MoonshineModel(tmp_path, language=language)
    lengths = [
        len(model.decode(np.random.default_rng(seed).normal(0, 0.1, 32_000).astype(np.float32)).ids)
        for seed in range(8)
    ]
    assert max(lengths) == at_most


def test_another_number_of_heads_is_a_clear_error(tmp_path: Path) -> None:
    tiny_moonshine.build(tmp_path, Sizes(width=96, heads=6))
    with pytest.raises(EngineError, match="6 attention heads, where all published models have 8"):
        build_graphs(tmp_path)

"""Models of sherpa-onnx, with the embedded model's files: the same weights in another library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clips import sherpa_moonshine, two_cities
from words import said

from auricle.audio.formats import SAMPLE_RATE
from auricle.bench.corpus import TWO_CITIES
from auricle.engines.base import EngineError, Transcript, Transcription, Utterance
from auricle.engines.registry import catalog, load_engine
from auricle.engines.sherpa import SherpaModel, SherpaSettings, _file
from auricle.settings import Settings

pytest.importorskip("sherpa_onnx")

OPTIONS = Transcription(model="sherpa/moonshine")
SPEECH = two_cities()[: 12 * SAMPLE_RATE]
WORDS = TWO_CITIES[: TWO_CITIES.index(", it was the season")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sherpa_moonshine(tmp_path_factory.mktemp("models") / "moonshine")


@pytest.fixture(scope="module")
def model(folder: Path) -> SherpaModel:
    return SherpaModel("sherpa/moonshine", SherpaSettings(path=folder, kind="moonshine_v2", languages=("en",)), 1)


def text_of(transcript: Transcript) -> str:
    return "".join(token.text for token in transcript.tokens)


def test_speech_is_transcribed(model: SherpaModel) -> None:
    (found,) = model.transcribe([Utterance(SPEECH, OPTIONS)])
    assert said(text_of(found), WORDS)
    assert found.language == "en"
    assert all(token.text.strip() for token in found.tokens)


def test_a_batch_gives_what_each_gives_alone(model: SherpaModel) -> None:
    audio = [SPEECH, np.zeros(0, np.float32), SPEECH[:40_000], np.zeros(1, np.float32)]
    together = model.transcribe([Utterance(samples, OPTIONS) for samples in audio])
    assert together == [model.transcribe([Utterance(samples, OPTIONS)])[0] for samples in audio]
    assert together[1] == Transcript(())


@pytest.mark.parametrize(
    ("tokens", "logprobs", "begins_s", "text", "expected"),
    [
        (["▁Hel", "lo"], [-0.1, -0.2], [], "Hello", [(" Hel", -0.1, None), ("lo", -0.2, None)]),
        (["▁Hel", "lo"], [], [0.1, 0.15], "Hello", [(" Hel", -0.5, (1_600, 2_400)), ("lo", -0.5, (2_400, 2_800))]),
        (["▁twen", "ty"], [-0.1, -0.2], [0.1, 0.2], "20", [(" 20", -0.5, None)]),
    ],
)
def test_tokens_have_their_probabilities_and_times_where_the_model_tells_them(
    model: SherpaModel, tokens: list, logprobs: list, begins_s: list, text: str, expected: list
) -> None:
    result = SimpleNamespace(tokens=tokens, ys_log_probs=logprobs, timestamps=begins_s, text=text, lang="<|de|>")
    found = model._transcript(result, 2_800)
    assert [(token.text, token.logprob, token.span) for token in found.tokens] == expected
    assert found.language == "de"


@pytest.mark.parametrize(
    ("names", "parameter", "expected"),
    [
        (["encoder-epoch-9.onnx", "encoder-epoch-9.int8.onnx", "decoder.onnx"], "encoder", "encoder-epoch-9.int8.onnx"),
        (["tiny.en-encoder.onnx", "tiny.en-decoder.onnx"], "decoder", "tiny.en-decoder.onnx"),
        (["cached_decode.onnx", "uncached_decode.onnx", "encode.onnx"], "cached_decoder", "cached_decode.onnx"),
        (["preprocess.onnx", "encode.onnx"], "preprocessor", "preprocess.onnx"),
        (["model.int8.onnx"], "paraformer", "model.int8.onnx"),
        (["odd.onnx"], "model", None),
    ],
)
def test_files_are_found_by_their_names(tmp_path: Path, names: list[str], parameter: str, expected: str | None) -> None:
    for name in names:
        (tmp_path / name).touch()
    settings = SherpaSettings(path=tmp_path, kind="any")
    if expected is None:
        with pytest.raises(EngineError, match=f"no file for its '{parameter}' in {tmp_path}"):
            _file("sherpa/x", settings, parameter)
        settings = SherpaSettings(path=tmp_path, kind="any", files={parameter: names[0]})
        expected = names[0]
    assert _file("sherpa/x", settings, parameter).name == expected


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "nonsense"}, "no kind 'nonsense', but .*transducer"),
        ({"kind": "transducer"}, "no file for its 'joiner'"),
        ({"path": "/nowhere", "kind": "moonshine_v2"}, "no file for its 'encoder' in /nowhere"),
        ({"kind": "moonshine_v2", "options": {"nonsense": 1}}, "can't be loaded from .*nonsense"),
        ({"kind": "moonshine_v2", "files": {"encoder": "tokens.txt"}}, "can't be loaded from "),
    ],
)
def test_what_cannot_be_loaded_is_a_clear_error(folder: Path, values: dict, told: str) -> None:
    models = {"sherpa/x": {"path": str(folder)} | values}
    with pytest.raises(EngineError, match=f"sherpa/x.*{told}"):
        load_engine(catalog(Settings(models=models)).spec("sherpa/x"), 1)


def test_a_model_needs_its_folder_and_kind() -> None:
    with pytest.raises(ValueError, match=r"models\.sherpa/x\.path: Field required"):
        catalog(Settings(models={"sherpa/x": {}}))

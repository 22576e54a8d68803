"""Whisper on a model in miniature: real files, real loading code, and texts that are known beforehand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_whisper
from tiny_whisper import LOUD, QUIET

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import Align, Alignment, Decode, EngineError, Token, Transcript, Transcription, Utterance
from auricle.engines.registry import catalog, find_family, load_engine
from auricle.engines.whisper import SIZES, WhisperModel, WhisperSettings
from auricle.settings import Settings

OPTIONS = Transcription(model="whisper/tiny-test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper.build(tmp_path_factory.mktemp("models") / "tiny-test")


@pytest.fixture(scope="module")
def english_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper.build(tmp_path_factory.mktemp("models") / "tiny-test.en", is_multilingual=False)


@pytest.fixture(scope="module")
def model(folder: Path) -> WhisperModel:
    settings = WhisperSettings(path=folder, device="cpu")
    return WhisperModel("whisper/tiny-test", folder, settings, ("en", "de", "fr"), 1)


def noise(level: float, seconds: float = 3.0, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(round(seconds * SAMPLE_RATE)) * level).astype(np.float32)


QUIET_AUDIO, LOUD_AUDIO = noise(0.001), noise(0.5)


def transcripts(model: WhisperModel, *audio: Samples, options: Transcription = OPTIONS) -> list[Transcript]:
    return model.transcribe([Utterance(samples, options) for samples in audio])


def text_of(transcript: Transcript) -> str:
    return "".join(token.text for token in transcript.tokens)


def test_a_text_comes_with_its_probabilities_and_language(model: WhisperModel) -> None:
    (quiet,) = transcripts(model, QUIET_AUDIO)
    assert (text_of(quiet), quiet.language) == (QUIET, "en")
    assert [token.text for token in quiet.tokens] == [" Hello", " to", " all", " of", " you", "."]
    assert all(-3 < token.logprob <= 0 for token in quiet.tokens)
    # Whether it is the quiet text or the loud one is decided by the first token.
    assert quiet.tokens[0].logprob < quiet.tokens[1].logprob


def test_letters_of_several_bytes_are_one_token(model: WhisperModel) -> None:
    (loud,) = transcripts(model, LOUD_AUDIO)
    assert (text_of(loud), loud.language) == (LOUD, "de")
    assert {"ö", "👋"} <= {token.text for token in loud.tokens}
    assert len(next(token for token in loud.tokens if token.text == "👋").ids) == 4


def test_the_probabilities_are_those_of_the_decoder(model: WhisperModel) -> None:
    """Their sum is the score that CTranslate2 gives for the sequence."""
    from ctranslate2 import StorageView

    (quiet,) = transcripts(model, QUIET_AUDIO)
    features = StorageView.from_array(model._window_features(QUIET_AUDIO)[None])
    (result,) = model._network.generate(
        features, [model._begin("en")], beam_size=1, return_scores=True, suppress_tokens=model._suppressed
    )
    assert sum(token.logprob for token in quiet.tokens) == pytest.approx(
        result.scores[0] * len(result.sequences_ids[0]), abs=0.02
    )


def test_a_batch_gives_what_each_gives_alone(model: WhisperModel) -> None:
    told = OPTIONS.model_copy(update={"prompt": "a few words before", "language": "de"})
    utterances = [
        Utterance(QUIET_AUDIO, OPTIONS),
        Utterance(LOUD_AUDIO, told),
        Utterance(np.zeros(0, np.float32), OPTIONS),
        Utterance(noise(0.5, 0.5), OPTIONS),
        Utterance(noise(0.001, 25.0), told),
    ]
    together = model.transcribe(utterances)
    for utterance, found in zip(utterances, together, strict=True):
        (alone,) = model.transcribe([utterance])
        assert (text_of(found), found.language) == (text_of(alone), alone.language)
        assert [token.logprob for token in found.tokens] == pytest.approx([t.logprob for t in alone.tokens], abs=0.02)
    assert [text_of(found) for found in together] == [QUIET, LOUD, "", LOUD, QUIET]
    assert [found.language for found in together] == ["en", "de", None, "de", "de"]


@pytest.mark.parametrize(
    ("asked", "spoken"),
    [
        ({"language": "fr"}, "fr"),
        ({"language": "en-GB"}, "en"),
        ({"languages": ["fr", "en"]}, "en"),
        ({"languages": ["fr"]}, "fr"),
        ({}, "de"),
        ({"languages": ["xx"]}, "de"),
    ],
)
def test_the_language_is_what_was_asked_for_or_the_likeliest(model: WhisperModel, asked: dict, spoken: str) -> None:
    (found,) = transcripts(model, LOUD_AUDIO, options=OPTIONS.model_copy(update=asked))
    assert found.language == spoken


def test_audio_of_more_than_30_s_is_heard_to_its_end(model: WhisperModel) -> None:
    (found,) = transcripts(model, np.concatenate([noise(0.5, 30.0), noise(0.001, 10.0)]))
    assert text_of(found) == LOUD + QUIET


def test_prompt_and_keywords_are_told_before_the_text(model: WhisperModel) -> None:
    tokenizer = model._tokenizer
    told = model._told_before(OPTIONS.model_copy(update={"prompt": " At the Ritz. ", "keywords": ["Auricle", "Ritz"]}))
    assert told[0] == tokenizer.sot_prev
    assert tokenizer.decode(list(told[1:])) == " At the Ritz. Auricle, Ritz"
    assert model._told_before(OPTIONS) == ()
    long = OPTIONS.model_copy(update={"prompt": "word " * 2000, "keywords": ["Auricle"]})
    assert len(model._told_before(long)) == 224
    assert text_of(transcripts(model, QUIET_AUDIO, options=long)[0]) == QUIET


class Answer:
    """A result of the decoder."""

    def __init__(self, model: WhisperModel, text: str, no_speech_prob: float = 0.0, lead: float = 10.0) -> None:
        """`lead` is by how much the logit of each token is above all others."""
        from ctranslate2 import StorageView

        ids = model._tokenizer.encode(text)
        size = model._tokenizer.timestamp_begin
        self.sequences_ids = [[*ids, model._tokenizer.timestamp_begin + 3]]
        self.no_speech_prob = no_speech_prob
        rows = [np.eye(1, size, number, dtype=np.float32)[0] * lead for number in ids]
        self.logits = [[StorageView.from_array(row) for row in rows]]


def test_what_is_likely_no_speech_has_no_text(model: WhisperModel) -> None:
    assert model._tokens(Answer(model, QUIET, no_speech_prob=0.9, lead=1.0)) == ()
    assert model._tokens(Answer(model, QUIET, no_speech_prob=0.9, lead=20.0))
    assert model._tokens(Answer(model, QUIET, no_speech_prob=0.1, lead=1.0))


def test_a_longer_neighbour_allows_for_no_more_tokens(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.engines.whisper._MAX_TOKENS_PER_S", 1)
    monkeypatch.setattr("auricle.engines.whisper._EXTRA_TOKENS", 1)
    short, long = (Utterance(noise(0.001, duration_s), OPTIONS) for duration_s in (1.0, 25.0))
    (alone,) = model.transcribe([short])
    assert len(alone.tokens) == 2
    assert model.transcribe([short, long])[0].tokens == alone.tokens


def test_a_loop_is_said_once(model: WhisperModel) -> None:
    tokens = model._tokens(Answer(model, QUIET * 9))
    assert "".join(token.text for token in tokens) == QUIET


def test_signs_that_stand_for_sounds_are_suppressed(model: WhisperModel) -> None:
    tokenizer = model._tokenizer
    assert {tokenizer.encode(sign)[0] for sign in ("♪", "[", "(")} <= set(model._suppressed)
    assert tokenizer.encode(",")[0] not in model._suppressed


def test_a_model_of_english_only_has_no_languages(english_folder: Path) -> None:
    settings = WhisperSettings(path=english_folder, device="cpu")
    model = WhisperModel("whisper/tiny-test.en", english_folder, settings, ("en",), 1)
    (found,) = transcripts(model, LOUD_AUDIO)
    assert (text_of(found), found.language) == (LOUD, "en")
    assert len(model._begin("en")) == 2


# As a family


def offered(**models: dict) -> dict:
    named = {f"whisper/{name}": values for name, values in models.items()}
    return dict(catalog(Settings(models=named)).specs)


def test_the_sizes_are_those_of_faster_whisper() -> None:
    from faster_whisper import available_models

    assert set(SIZES) == set(available_models())


def test_what_a_model_understands_is_known_beforehand() -> None:
    names = {
        "whisper/small": {"device": "cuda"},
        "whisper/small.en": {},
        "whisper/large-v3": {},
        "whisper/distil-large-v3": {},
    }
    directory = catalog(Settings(models=names | {"whisper/tiny": {"languages": ["pl"], "device": "cpu"}})).directory
    languages = {model.name: model.languages for model in directory.models}
    assert len(languages["whisper/small"]) == 99
    assert "yue" in languages["whisper/large-v3"]
    assert languages["whisper/small.en"] == languages["whisper/distil-large-v3"] == ("en",)
    assert languages["whisper/tiny"] == ("pl",)
    batches = {model.name: model.max_batch for model in directory.models}
    assert (batches["whisper/tiny"], batches["whisper/small.en"], batches["whisper/small"]) == (1, 1, 8)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("smal", {}, "There is no model 'whisper/smal'.*small"),
        ("small", {"device": "tpu"}, r"models\.whisper/small\.device: "),
        ("small", {"beams": 5}, r"models\.whisper/small\.beams: "),
    ],
)
def test_a_name_or_setting_that_makes_no_sense_is_a_clear_error(name: str, values: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        offered(**{name: values})


def test_weights_that_are_not_in_the_cache_name_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = offered(small={})["whisper/small"]
    with pytest.raises(EngineError, match=f"whisper/small.*{tmp_path}.*auricle models pull whisper/small.*path"):
        load_engine(spec, 1)


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json"])
def test_a_file_that_is_not_in_the_folder_is_a_clear_error(folder: Path, tmp_path: Path, missing: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / missing).unlink()
    with pytest.raises(EngineError, match=f"whisper/copy.*no {missing} in {copy}"):
        load_engine(offered(copy={"path": str(copy)})["whisper/copy"], 1)


@pytest.mark.parametrize("damaged", ["model.bin", "tokenizer.json"])
def test_a_damaged_file_is_a_clear_error(folder: Path, tmp_path: Path, damaged: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / damaged).write_bytes(b"nonsense")
    with pytest.raises(EngineError, match="The model whisper/copy failed: "):
        load_engine(offered(copy={"path": str(copy)})["whisper/copy"], 1)


@pytest.mark.parametrize("values", [{"device": "cuda"}, {"compute_type": "int3"}])
def test_a_device_or_type_that_is_not_there_is_a_clear_error(folder: Path, values: dict) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count() and "device" in values:
        pytest.skip("there is a GPU")
    spec = offered(here={"path": str(folder), **values})["whisper/here"]
    with pytest.raises(EngineError, match="The model whisper/here failed: "):
        load_engine(spec, 1)


def test_fetching_fails_clearly(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(repository: str, **options: object) -> str:
        assert repository == "Systran/faster-whisper-small"
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    spec = offered(small={})["whisper/small"]
    with pytest.raises(EngineError, match=r"whisper/small can't be fetched.*no network"):
        find_family(spec).fetch(spec, lambda done, total: None)
    here = offered(here={"path": str(folder)})["whisper/here"]
    with pytest.raises(EngineError, match="nothing to fetch"):
        find_family(here).fetch(here, lambda done, total: None)


def test_a_whole_engine_streams(folder: Path) -> None:
    engine = load_engine(offered(here={"path": str(folder), "device": "cpu"})["whisper/here"], 1)
    options = Transcription(model="whisper/here")
    (final,) = engine.decode([Decode("item_1", options, LOUD_AUDIO)])
    assert "".join(token.text for token in final.committed) == LOUD
    assert final.language == "de"
    assert all(isinstance(token, Token) and math.isfinite(token.logprob) for token in final.committed)
    assert json.loads((folder / "config.json").read_text())["alignment_heads"]


class AligningNetwork:
    """The model's network, with a path of its own through the audio."""

    def __init__(self, network: Any, path: list[tuple[int, int]]) -> None:
        self._network = network
        self._path = path
        self.asked: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def align(self, encoded: Any, *asked: Any) -> list[SimpleNamespace]:
        self.asked = asked
        return [SimpleNamespace(alignments=self._path)]


def test_the_path_through_the_audio_becomes_spans(model: WhisperModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is 20 ms. The last token of the path is the end of the text."""
    path = [(0, -1), (0, 0), (0, 1), (1, 1), (2, 2), (2, 3), (3, 4), (3, 5), (3, 148), (3, 149)]
    network = AligningNetwork(model._network, path)
    monkeypatch.setattr(model, "_network", network)
    tokens = (Token(" Hello", -0.1, ids=(270,)), Token("é", -0.1, ids=(300, 301)))
    (found,) = model.align([Align("item_1", OPTIONS, QUIET_AUDIO, tokens)])
    assert found == Alignment(((0, 320), (320, 1_280)))
    begin, texts, frames = network.asked
    assert (texts, frames) == ([[270, 300, 301]], 300)
    assert model._tokenizer.no_timestamps not in begin
    assert begin[0] == model._tokenizer.sot


def test_more_than_the_model_can_hear_is_not_aligned(model: WhisperModel) -> None:
    (found,) = model.align([Align("item_1", OPTIONS, noise(0.001, 30.1), (Token(" Hello", -0.1, ids=(270,)),))])
    assert isinstance(found, EngineError)


def test_a_text_that_cannot_be_aligned_fails_alone(model: WhisperModel) -> None:
    """The decoder takes 448 tokens."""
    short, long = ((Token(" Hello", -0.1, ids=(270,)),) * count for count in (1, 500))
    jobs = [Align(f"item_{len(tokens)}", OPTIONS, QUIET_AUDIO, tokens) for tokens in (short, long, short)]
    first, failed, last = model.align(jobs)
    assert isinstance(failed, EngineError)
    assert isinstance(first, Alignment)
    assert first == last

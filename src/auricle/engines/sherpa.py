"""Models of sherpa-onnx, each a folder of ONNX files. Knows nothing of streams or sessions.

Offline ones (Parakeet, SenseVoice, Zipformer, Paraformer and many others) are here: whole utterances in, tokens out.
Those that stream by themselves are opened here and led by `sherpa_streaming.py`. Which files a kind of model needs is
read from the library's own constructors, so that new kinds need no change here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.base import (
    UNKNOWN_LOGPROB,
    Engine,
    EngineError,
    Family,
    ModelInfo,
    ModelSettings,
    ModelSpec,
    Token,
    Transcript,
    Utterance,
    Whereabouts,
)
from auricle.engines.hub import in_folder
from auricle.engines.rolling import RollingEngine
from auricle.engines.sherpa_hotwords import Hotwords
from auricle.engines.sherpa_streaming import StreamingEngine, emission_spans

_STREAMING_BATCH = 16
"""How many streams that go on are decoded together, where nothing else is set."""
_REVISING = frozenset({"rule_fsts", "rule_fars", "hr_lexicon", "ctc_graph"})
"""What the constructor may be given under which text that was found may still become another."""
_UNITS = ("cjkchar", "bpe", "cjkchar+bpe")
"""In what keywords can be spelled."""
_MIN_SAMPLES = SAMPLE_RATE // 10
"""Shorter audio is padded: some models fail on less than a frame."""


class SherpaSettings(ModelSettings):
    """What can be set about one of these models."""

    path: Path = Field(description="Folder of the model's files")
    kind: str = Field(pattern="^[a-z0-9_]+$", description="As in `OfflineRecognizer.from_KIND`")
    streaming: bool = Field(False, description="It streams by itself: its kind is as in `OnlineRecognizer.from_KIND`")
    files: dict[str, str] = Field({}, description="Names of files that can't be told by their names, by parameter")
    options: dict[str, bool | int | float | str] = Field({}, description="What else that constructor takes")


class SherpaFamily(Family):
    """`sherpa/NAME`: any name, with a folder and the kind of model."""

    settings = SherpaSettings

    def info(self, spec: ModelSpec) -> ModelInfo:
        """See `Family`."""
        settings = spec.settings
        max_batch = settings.max_batch or (_STREAMING_BATCH if settings.streaming else 1)
        # Most kinds tell no probabilities, and which do shows only in their results.
        languages, has_times = settings.languages or (), _tells_times(settings)
        return ModelInfo(spec.name, languages, max_batch, has_logprobs=False, has_word_times=has_times)

    def whereabouts(self, spec: ModelSpec) -> Whereabouts:
        """See `Family`."""
        return in_folder(spec.settings.path, str(spec.settings.options.get("provider", "cpu")))

    def load(self, spec: ModelSpec, threads: int) -> Engine:
        """See `Family`."""
        settings = spec.settings
        if not settings.streaming:
            return RollingEngine(SherpaModel(spec.name, settings, threads))
        hotwords = _hotwords(spec.name, settings)
        recognizer = _recognizer(spec.name, settings, threads)
        language, may_revise = settings.only_language, _may_revise(settings)
        return StreamingEngine(spec.name, recognizer, hotwords, language, may_revise=may_revise)


class SherpaModel:
    """A recogniser. Lives in the process that loads it; one thread calls it. Implements `OfflineModel`."""

    def __init__(self, name: str, settings: SherpaSettings, threads: int) -> None:
        """Raises EngineError: sherpa-onnx is not installed, has no such kind, or can't load the files."""
        self._name = name
        self._only_language = settings.only_language
        self._recognizer = _recognizer(name, settings, threads)

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `OfflineModel`. Of the options it takes none: those of these models are set when they are loaded."""
        streams = [self._stream(utterance.samples) for utterance in utterances]
        try:
            self._recognizer.decode_streams([stream for stream in streams if stream is not None])
        except RuntimeError as error:
            raise EngineError(f"The model {self._name} failed: {error}") from error
        return [
            Transcript(()) if stream is None else self._transcript(stream.result, utterance.samples.size)
            for stream, utterance in zip(streams, utterances, strict=True)
        ]

    def _stream(self, samples: Samples) -> Any:
        if samples.size == 0:
            return None
        stream = self._recognizer.create_stream()
        stream.accept_waveform(SAMPLE_RATE, np.pad(samples, (0, max(_MIN_SAMPLES - samples.size, 0))))
        return stream

    def _transcript(self, result: Any, size: int) -> Transcript:
        """Tokens with their probabilities and times where the model tells them all, else words.

        `size` is how many samples of speech there are.
        """
        language = result.lang.strip("<|>") or self._only_language
        try:
            text = result.text
        except UnicodeDecodeError:  # it breaks off amid a letter: no speech, or none of a language that it knows
            return Transcript((), language)
        try:
            texts = [token.replace("▁", " ") for token in result.tokens]
        except UnicodeDecodeError:  # a letter is spread over several of them
            texts = []
        begins_s = list(result.timestamps)
        if "".join(texts).strip() != text.strip():  # so it is too where rules have changed the text
            texts, begins_s = [f" {word}" for word in text.split()], []
        logprobs = list(result.ys_log_probs)
        if len(logprobs) != len(texts):
            logprobs = [UNKNOWN_LOGPROB] * len(texts)
        spans = emission_spans(begins_s, size) if len(begins_s) == len(texts) else [None] * len(texts)
        parts = zip(texts, logprobs, spans, strict=True)
        return Transcript(tuple(Token(text, value, span=span) for text, value, span in parts), language)


def _tells_times(settings: SherpaSettings) -> bool:
    """Whether a model says with which frame it found each token of its text.

    Those that write as they please don't, nor is it known where rules change the text. Of streaming CTC models
    sherpa-onnx believes that they all have 25 outputs a second, which isn't true of NeMo's and not known of T-one's.
    """
    if not _REVISING.isdisjoint([*settings.options, *settings.files]):
        return False
    if settings.streaming:
        return settings.kind in ("transducer", "zipformer2_ctc", "wenet_ctc")
    return settings.kind in ("transducer", "sense_voice") or settings.kind.endswith("_ctc")


def _recognizer(name: str, settings: SherpaSettings, threads: int) -> Any:
    """The library's recogniser. Raises EngineError: it is not installed, has no such kind, or can't load the files."""
    try:
        from sherpa_onnx import OfflineRecognizer, OnlineRecognizer
    except ImportError as error:
        raise EngineError(f"The model {name} needs sherpa-onnx: install auricle[sherpa].") from error
    recognizer = OnlineRecognizer if settings.streaming else OfflineRecognizer
    make = getattr(recognizer, f"from_{settings.kind}", None)
    if make is None:
        kinds = ", ".join(entry.removeprefix("from_") for entry in dir(recognizer) if entry.startswith("from_"))
        what = "streaming kind" if settings.streaming else "kind"
        raise EngineError(f"The model {name}: sherpa-onnx has no {what} {settings.kind!r}, but {kinds}.")
    parameters = inspect.signature(make).parameters
    needed = [entry.name for entry in parameters.values() if entry.default is inspect.Parameter.empty]
    files = {
        parameter: str(_file(name, settings, parameter)) for parameter in dict.fromkeys([*needed, *settings.files])
    }
    defaults: dict[str, Any] = {"num_threads": threads}
    if "temperature_scale" in parameters:
        defaults["temperature_scale"] = 1.0  # the probabilities that it has, and not flatter ones
    try:
        return make(**files, **(defaults | settings.options))
    except (RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"The model {name} can't be loaded from {settings.path}: {error}") from error


def _may_revise(settings: SherpaSettings) -> bool:
    """Whether a streaming model may take back what it found: not in a greedy search, unless rules change its text."""
    is_greedy = settings.options.get("decoding_method", "greedy_search") == "greedy_search"
    return not (is_greedy and _REVISING.isdisjoint([*settings.options, *settings.files]))


def _hotwords(name: str, settings: SherpaSettings) -> Hotwords | None:
    """What brings keywords to a streaming model, if it can take any. Raises EngineError: the settings don't fit."""
    unit = settings.options.get("modeling_unit")
    if settings.kind != "transducer" or unit is None:
        return None
    problem = None
    if settings.options.get("decoding_method") != "modified_beam_search":
        problem = '`modeling_unit` is for keywords, and those need `decoding_method = "modified_beam_search"`'
    elif unit not in _UNITS:  # sherpa-onnx would end the process
        problem = f"its `modeling_unit` is one of {', '.join(_UNITS)}, not {unit!r}"
    elif "bpe" in str(unit) and not {"bpe_vocab"} & {*settings.files, *settings.options}:
        problem = f"keywords in {unit!r} need its `bpe_vocab`: the file's name in `files`, or its path in `options`"
    if problem:
        raise EngineError(f"The model {name} can't be loaded: {problem}.")
    return Hotwords(_file(name, settings, "tokens"))


def _file(name: str, settings: SherpaSettings, parameter: str) -> Path:
    """The file for a constructor's parameter, such as `encoder`: by its name. Raises EngineError: there is none.

    A smaller one with 8-bit weights is preferred.
    """
    if parameter in settings.files:
        found = [settings.path / settings.files[parameter]]
    elif parameter == "tokens":
        found = [settings.path / "tokens.txt"]
    else:
        networks = sorted(path for path in settings.path.glob("*") if path.suffix in (".onnx", ".ort"))
        found = [path for path in networks if _is_named(path.name, parameter)]
        found = found or [path for path in networks if _is_named(path.name, "model")]
        found.sort(key=lambda path: "int8" not in path.name)
    if not (found and found[0].is_file()):
        message = f"The model {name} can't be loaded: there is no file for its {parameter!r} in {settings.path}."
        raise EngineError(f"{message} Set its `path`, or the file's name in `files`.")
    return found[0]


def _is_named(file: str, parameter: str) -> bool:
    """Whether a part of a file's name says that it is for a parameter: `tiny-encoder.int8.onnx`, `encode.onnx`."""
    parts = (part for part in re.split(r"[.\-]", file) if len(part) >= 5)
    return any(part.startswith(parameter) or parameter.startswith(part) for part in parts)

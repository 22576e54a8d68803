"""Whisper on CTranslate2: whole utterances in, tokens out. Knows nothing of streams or sessions.

Of faster-whisper its audio features, its tokenizer and its list of models are used. Its own `transcribe` is for whole
recordings: it takes one at a time, and gives probabilities of words, for which it runs the decoder once more.

When words were said, CTranslate2 finds out as OpenAI's own code does: by dynamic time warping on the attention of those
heads of the model that are known to follow the audio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auricle.audio.formats import SAMPLE_RATE, Samples
from auricle.engines.alignment import spans_of
from auricle.engines.base import (
    Align,
    Alignment,
    Engine,
    EngineError,
    Family,
    ModelInfo,
    ModelSettings,
    ModelSpec,
    Progress,
    Token,
    Transcript,
    Transcription,
    Translation,
    Utterance,
    Whereabouts,
)
from auricle.engines.hub import HubModel, in_folder
from auricle.engines.loops import length_without_loop
from auricle.engines.rolling import RollingEngine
from auricle.protocol.config import without_region
from auricle.protocol.languages import LANGUAGE_NAMES

_ENGLISH = (
    *("tiny.en", "base.en", "small.en", "medium.en"),
    *("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5"),
)
_MANY = ("tiny", "base", "small", "medium", "large-v1", "large-v2", "large-v3", "large", "large-v3-turbo", "turbo")
SIZES = (*_ENGLISH, *_MANY)
"""The models that faster-whisper has names for: those for English, and those for many languages."""
_WITH_CANTONESE = ("large-v3", "large", "large-v3-turbo", "turbo")
_WITHOUT_TRANSLATION = (*_ENGLISH, "large-v3-turbo", "turbo")
"""Turbo was trained for transcription alone."""

_FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""Those of a repository that are fetched, as faster-whisper does it."""
_NEEDED = ("model.bin", "config.json", "tokenizer.json")

WINDOW_SAMPLES = 30 * SAMPLE_RATE
"""What the model hears at a time. Shorter audio is padded, as in its training."""
_FRAMES = 3_000
_FRAME_SAMPLES = WINDOW_SAMPLES // _FRAMES
_STEP_SAMPLES = 2 * _FRAME_SAMPLES
"""The encoder's own step: it takes two frames together."""
_MAX_TOKENS = 224
"""The most for one window, and for what is told beforehand: half of what the decoder can hold."""
_MAX_TOKENS_PER_S, _EXTRA_TOKENS = 25, 20
"""More are invented. Generous, since some scripts take several tokens a letter."""
_NO_SPEECH, _DOUBT = 0.6, -1.0
"""Above this probability of no speech, a text with less than this mean log-probability is dropped (Whisper's rule)."""
_BATCH = 8
"""Utterances at a time where `device` is `cuda`. A CPU gains nothing from several, and all would wait for the last."""


class WhisperSettings(ModelSettings):
    """What can be set about one of these models."""

    path: Path | None = Field(None, description="Folder of a converted model. Else the Hugging Face cache is used")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = Field("auto", description="As CTranslate2 has them: int8, float16, … `auto`: the fastest")


class WhisperFamily(Family):
    """`whisper/SIZE`, `whisper/OWNER/REPOSITORY` of the Hugging Face hub, or any name with a folder."""

    settings = WhisperSettings

    def info(self, spec: ModelSpec) -> ModelInfo:
        """See `Family`."""
        name, settings = spec.name_in_family, spec.settings
        if settings.path is None and name not in SIZES and "/" not in name:
            raise ValueError(f"There is no model {spec.name!r}. Set its `path`, or take one of: {', '.join(SIZES)}.")
        known = tuple(code for code in LANGUAGE_NAMES if code != "yue" or name in _WITH_CANTONESE)
        languages = settings.languages or (("en",) if name in _ENGLISH else known)
        max_batch = settings.max_batch or (_BATCH if settings.device == "cuda" else 1)
        return ModelInfo(
            spec.name, languages, max_batch, has_word_times=True, can_translate=name not in _WITHOUT_TRANSLATION
        )

    def load(self, spec: ModelSpec, threads: int) -> Engine:
        """See `Family`."""
        model = WhisperModel(spec.name, _folder(spec), spec.settings, self.info(spec).languages, threads)
        model.warm_up()
        return RollingEngine(model)

    def whereabouts(self, spec: ModelSpec) -> Whereabouts:
        """See `Family`."""
        device = spec.settings.device
        if (on_hub := _on_hub(spec)) is None:
            return in_folder(spec.settings.path, device)
        folder = on_hub.find()
        return in_folder(folder, device) if folder else Whereabouts(device, str(on_hub.cache), is_here=False)

    def fetch(self, spec: ModelSpec, progress: Progress) -> str:
        """See `Family`."""
        if (on_hub := _on_hub(spec)) is None:
            raise EngineError(f"{spec.name} has a folder of its own, {spec.settings.path}. There is nothing to fetch.")
        return str(on_hub.fetch(progress))

    def remove(self, spec: ModelSpec) -> int:
        """See `Family`."""
        if (on_hub := _on_hub(spec)) is None:
            message = f"{spec.name} has a folder of its own, {spec.settings.path}. It is yours to remove."
            raise EngineError(message)
        return on_hub.remove()


def _on_hub(spec: ModelSpec) -> HubModel | None:
    """Its repository; None: it has a folder of its own."""
    if spec.settings.path is not None:
        return None
    # The library tells the names of its sizes, and where they are only here.
    from faster_whisper.utils import _MODELS as REPOSITORIES

    name = spec.name_in_family
    return HubModel(spec.name, REPOSITORIES.get(name, name), _FILES, _NEEDED)


def _folder(spec: ModelSpec) -> Path:
    """Where the weights are. Raises EngineError: they aren't."""
    if on_hub := _on_hub(spec):
        return on_hub.folder()
    folder: Path = spec.settings.path
    for file in _NEEDED:
        if not (folder / file).is_file():
            message = (
                f"The model {spec.name} can't be loaded: there is no {file} in {folder}. Its `path` must be that of"
            )
            raise EngineError(
                f"{message} a folder that ct2-transformers-converter made, with --copy_files tokenizer.json."
            )
    return folder


@contextmanager
def _engine_errors(name: str) -> Iterator[None]:
    """CTranslate2 and the tokenizer tell everything with these two. Raises EngineError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"The model {name} failed: {error}") from error


@dataclass(frozen=True, slots=True)
class _Window:
    """Up to 30 s of an utterance."""

    utterance: int
    samples: Samples
    before: tuple[int, ...]
    """Tokens that are told as if they had been said before."""
    languages: tuple[str, ...]
    """Those that come into question."""
    is_translated: bool


class WhisperModel:
    """The networks and the tokenizer. Lives in the process that loads it; one thread calls it. An `OfflineModel`.

    Drafts are not used: CTranslate2 can only force a beginning on the decoder, not check it, and a decoder that must
    continue its own early mistakes makes more of them. What was said before is not used either.
    """

    def __init__(
        self, name: str, folder: Path, settings: WhisperSettings, languages: tuple[str, ...], threads: int
    ) -> None:
        """`languages` are those that it is to find in audio. Raises EngineError: it can't be loaded."""
        from ctranslate2.models import Whisper
        from faster_whisper.feature_extractor import FeatureExtractor
        from faster_whisper.tokenizer import Tokenizer
        from tokenizers import Tokenizer as TokenizerFile

        self._name = name
        with _engine_errors(name):
            self._network: Any = Whisper(
                str(folder), device=settings.device, compute_type=settings.compute_type, intra_threads=threads
            )
            try:
                file = TokenizerFile.from_file(str(folder / "tokenizer.json"))
            except Exception as error:  # the library raises nothing narrower
                raise ValueError(f"{folder / 'tokenizer.json'}: {error}") from error
            is_multilingual = self._network.is_multilingual
            self._tokenizer: Any = Tokenizer(file, is_multilingual, task="transcribe", language="en")
            self._features: Any = FeatureExtractor(feature_size=self._network.n_mels)
        ids = {language: file.token_to_id(f"<|{language}|>") for language in languages}
        self._language_ids: dict[str, int] = {
            language: number for language, number in ids.items() if number is not None
        }
        """Empty for a model of English only."""
        if not is_multilingual:
            self._language_ids = {}
        self._suppressed = _suppressed(self._tokenizer)

    def warm_up(self) -> None:
        """Run it once, so that the first utterance does not wait."""
        self.transcribe([Utterance(np.zeros(SAMPLE_RATE, np.float32), Transcription())])

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        """See `OfflineModel`. Of the options it takes language, languages, prompt and keywords. Raises EngineError."""
        windows = [
            window
            for index, utterance in enumerate(utterances)
            for window in self._windows(index, utterance.samples, utterance.options)
        ]
        # The texts told beforehand must be of one length in a batch, and mostly there are none.
        batches: dict[int, list[_Window]] = {}
        for window in windows:
            batches.setdefault(len(window.before), []).append(window)
        found: dict[int, Transcript] = {}
        with _engine_errors(self._name):
            for batch in batches.values():
                for window, transcript in zip(batch, self._decode(batch), strict=True):
                    first = found.get(window.utterance)
                    language = first.language if first else transcript.language
                    tokens = (first.tokens if first else ()) + transcript.tokens
                    found[window.utterance] = Transcript(tokens, language)
        return [found.get(index, Transcript(())) for index in range(len(utterances))]

    def align(self, jobs: Sequence[Align]) -> list[Alignment | EngineError]:
        """See `Aligner`. Stretches have at most 30 s."""
        return [self._alignment(job) for job in jobs]

    def _alignment(self, job: Align) -> Alignment | EngineError:
        if job.samples.size > WINDOW_SAMPLES:
            return EngineError(f"The model {self._name} can align 30 s at most.")
        try:
            with _engine_errors(self._name):
                return Alignment(self._spans(job) if job.tokens else ())
        except EngineError as error:  # such as more tokens than the decoder takes: no affair of the other jobs
            return error

    def _spans(self, job: Align) -> tuple[tuple[int, int], ...]:
        from ctranslate2 import StorageView

        (window,) = self._windows(0, job.samples, job.options)
        encoded = self._network.encode(StorageView.from_array(self._window_features(window.samples)[np.newaxis]))
        language = self._spoken([window], encoded)[0]
        # The mark for no timestamps is put there.
        begin = self._begin(language, is_translated=window.is_translated)[:-1]
        ids = [number for token in job.tokens for number in token.ids]
        frames = max(job.samples.size // _FRAME_SAMPLES, 2)
        (result,) = self._network.align(encoded, begin, [ids], frames)
        # A path of (token, step): a token begins with its first step and ends where the next one begins. Where there is
        # next to no attention, the path begins before the audio.
        steps: dict[int, int] = {}
        for token, step in result.alignments:
            steps.setdefault(token, max(step, 0))
        bounds = [min(steps[index] * _STEP_SAMPLES, job.samples.size) for index in range(len(ids) + 1)]
        return spans_of([len(token.ids) for token in job.tokens], bounds)

    def _windows(self, index: int, samples: Samples, options: Transcription) -> Iterator[_Window]:
        if isinstance(options, Translation) and not self._language_ids:
            raise EngineError(f"The model {self._name} knows English alone, and can't translate.")
        before = self._told_before(options)
        asked = [without_region(code) for code in ([options.language] if options.language else options.languages or ())]
        languages = tuple(code for code in asked if code in self._language_ids) or tuple(self._language_ids)
        for start in range(0, samples.size, WINDOW_SAMPLES):
            window = samples[start : start + WINDOW_SAMPLES]
            yield _Window(index, window, before, languages, isinstance(options, Translation))

    def _told_before(self, options: Transcription) -> tuple[int, ...]:
        """The tokens of prompt and keywords, as text that was said before; the end of them, if they are too many."""
        text = " ".join(filter(None, [(options.prompt or "").strip(), ", ".join(options.keywords or ())]))
        if not text:
            return ()
        return (self._tokenizer.sot_prev, *self._tokenizer.encode(" " + text)[1 - _MAX_TOKENS :])

    def _decode(self, windows: Sequence[_Window]) -> Iterator[Transcript]:
        from ctranslate2 import StorageView

        features = np.stack([self._window_features(window.samples) for window in windows])
        encoded = self._network.encode(StorageView.from_array(features))
        languages = self._spoken(windows, encoded)
        prompts = [
            [*window.before, *self._begin(language, is_translated=window.is_translated)]
            for window, language in zip(windows, languages, strict=True)
        ]
        limits = [
            min(_MAX_TOKENS, window.samples.size * _MAX_TOKENS_PER_S // SAMPLE_RATE + _EXTRA_TOKENS)
            for window in windows
        ]
        results = self._network.generate(
            encoded,
            prompts,
            beam_size=1,
            max_length=len(prompts[0]) + max(limits),
            return_scores=True,
            return_logits_vocab=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
        )
        for result, language, limit in zip(results, languages, limits, strict=True):
            yield Transcript(self._tokens(result, limit), language)

    def _window_features(self, samples: Samples) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._features(samples)[:, :-1]
        return np.ascontiguousarray(np.pad(features, ((0, 0), (0, _FRAMES - features.shape[1]))), np.float32)

    def _spoken(self, windows: Sequence[_Window], encoded: Any) -> list[str]:
        """The language of each window: the likeliest of those that come into question."""
        if not self._language_ids:
            return ["en"] * len(windows)
        if all(len(window.languages) == 1 for window in windows):
            return [window.languages[0] for window in windows]
        spoken = []
        for window, ranking in zip(windows, self._network.detect_language(encoded), strict=True):
            codes = (token.strip("<|>") for token, _ in ranking)
            spoken.append(next((code for code in codes if code in window.languages), window.languages[0]))
        return spoken

    def _begin(self, language: str, *, is_translated: bool = False) -> list[int]:
        """The tokens before the text: of a model of many languages, its language and task too."""
        tokenizer = self._tokenizer
        task = tokenizer.translate if is_translated else tokenizer.transcribe
        language_and_task = [self._language_ids[language], task] if self._language_ids else []
        return [tokenizer.sot, *language_and_task, tokenizer.no_timestamps]

    def _tokens(self, result: Any, limit: int = _MAX_TOKENS) -> tuple[Token, ...]:
        """`limit`: as many as there can be, whatever a longer window beside it was allowed."""
        ids = [number for number in result.sequences_ids[0] if number < self._tokenizer.eot]
        ids = _without_loop(ids[:limit])
        logprobs = [_log_probability(row, number) for row, number in zip(result.logits[0], ids, strict=False)]
        if ids and result.no_speech_prob > _NO_SPEECH and sum(logprobs) / len(logprobs) < _DOUBT:
            return ()
        tokens, position = [], 0
        # A character may be spread over several tokens; those are one to us.
        for text, part in zip(*self._tokenizer.split_tokens_on_unicode(ids), strict=True):
            end = position + len(part)
            tokens.append(Token(text, sum(logprobs[position:end]), tuple(part)))
            position = end
        return tuple(tokens)


def _suppressed(tokenizer: Any) -> list[int]:
    """Tokens that are no text, and signs such as ♪ and brackets, which stand for sounds and not for words."""
    marks = ("sot", "sot_prev", "sot_lm", "translate", "transcribe", "no_speech", "no_timestamps")
    numbers = {getattr(tokenizer, mark) for mark in marks} | set(tokenizer.non_speech_tokens)
    return sorted(number for number in numbers if number is not None)


def _without_loop(ids: list[int]) -> list[int]:
    """The tokens up to the first loop, which is said once."""
    for end in range(1, len(ids) + 1):
        if (length := length_without_loop(ids[:end])) < end:
            return ids[:length]
    return ids


def _log_probability(logits: Any, number: int) -> float:
    """Of a token, by the logits (vocabulary,) that it was chosen from, wherever and of whatever type they are."""
    from ctranslate2 import DataType, Device

    row = np.array(logits.to_device(Device.cpu).to(DataType.float32))
    highest = float(row.max())
    return float(row[number]) - highest - float(np.log(np.exp(row - highest).sum()))

"""Models of other services: anything that has OpenAI's `/v1/audio/transcriptions`. Whole utterances in, words out.

Knows nothing of streams or sessions. Such services are vLLM, NVIDIA NIM, OpenAI itself, and another Auricle.
"""

from __future__ import annotations

import io
import random
import time
import wave
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

from pydantic import AnyHttpUrl, Field, SecretStr, model_validator

from auricle.audio.formats import SAMPLE_RATE, AudioFormat, Samples, encode
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
    Transcription,
    Translation,
    Utterance,
    Whereabouts,
    letters_of,
)
from auricle.engines.rolling import RollingEngine
from auricle.protocol.config import without_region

if TYPE_CHECKING:
    import httpx2

_PCM = AudioFormat("audio/pcm", SAMPLE_RATE)
_CALLS = 16
"""Calls at a time."""
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
"""Before the first retry, unless the service says how long; doubled with each."""
_MAX_MESSAGE = 300
"""So much of a service's own words is passed on."""


class UpstreamSettings(ModelSettings):
    """What can be set about one of these models."""

    base_url: AnyHttpUrl = Field(description="Where the API is, up to and with `/v1`")
    api_key: SecretStr | None = None
    model: str | None = Field(None, description="What the service calls it. Else the name after `upstream/`")
    logprobs: bool = Field(False, description="Ask for log-probabilities. Not all services know them")
    word_times: bool = Field(False, description="Ask when words were said. Not all services know it")
    translates: bool = Field(False, description="The service has `/audio/translations` for this model")
    timeout_s: float = Field(20, gt=0, description="Longest time for an utterance, with all retries")
    max_retries: int = Field(2, ge=0)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if self.logprobs and self.word_times:
            raise ValueError("`logprobs` and `word_times` can't be asked for together")  # it is one form or the other
        return self


class UpstreamFamily(Family):
    """`upstream/NAME`."""

    settings = UpstreamSettings

    def info(self, spec: ModelSpec) -> ModelInfo:
        """See `Family`."""
        settings = spec.settings
        max_batch = settings.max_batch or _CALLS
        return ModelInfo(
            spec.name,
            settings.languages or (),
            max_batch,
            has_logprobs=settings.logprobs,
            has_word_times=settings.word_times,
            can_translate=settings.translates,
        )

    def whereabouts(self, spec: ModelSpec) -> Whereabouts:
        """See `Family`."""
        return Whereabouts("elsewhere", str(spec.settings.base_url))

    def load(self, spec: ModelSpec, threads: int) -> Engine:
        """See `Family`. Nothing is asked of the service before there is speech."""
        return RollingEngine(UpstreamModel(spec.name, spec.name_in_family, spec.settings, self.info(spec).max_batch))


class UpstreamModel:
    """Calls a service, several times at once for a batch. One thread uses it. Implements `OfflineModel`."""

    def __init__(self, name: str, service_name: str, settings: UpstreamSettings, calls: int) -> None:
        """`service_name` is the model's name there, unless the settings have one; `calls` go out at a time."""
        import httpx2

        self._name = name
        self._model = settings.model or service_name
        self._settings = settings
        self._url = str(settings.base_url).rstrip("/") + "/audio/"
        key = settings.api_key
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            limits=httpx2.Limits(max_connections=calls),
        )
        weakref.finalize(self, self._client.close)
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="upstream")

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript | EngineError]:
        """See `OfflineModel`. Of the options it takes language, prompt and keywords."""
        return list(self._threads.map(self._transcribe, utterances))

    def _transcribe(self, utterance: Utterance) -> Transcript | EngineError:
        if utterance.samples.size == 0:
            return Transcript(())
        try:
            answer = self._ask(utterance)
        except EngineError as error:
            return error
        language = utterance.options.language or self._settings.only_language
        return Transcript(_tokens(answer, utterance.samples.size), without_region(language) if language else None)

    def _fields(self, options: Transcription) -> dict[str, str]:
        fields = {"model": self._model, "response_format": "json"}
        if options.language and not isinstance(options, Translation):  # which takes any language
            fields["language"] = without_region(options.language)
        if prompt := " ".join(filter(None, [options.prompt, ", ".join(options.keywords or ())])):
            fields["prompt"] = prompt
        if self._settings.logprobs:
            fields["include[]"] = "logprobs"
        if self._settings.word_times and not isinstance(options, Translation):  # whose words have none
            fields |= {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        return fields

    def _ask(self, utterance: Utterance) -> dict[str, Any]:
        """The service's answer. Raises EngineError: there is none, or it is no transcription."""
        import httpx2

        audio, fields = _wav(utterance.samples), self._fields(utterance.options)
        is_translated = isinstance(utterance.options, Translation)
        url = self._url + ("translations" if is_translated else "transcriptions")
        deadline_s = time.monotonic() + self._settings.timeout_s
        wait_s = _FIRST_WAIT_S
        for retries_left in range(self._settings.max_retries, -1, -1):
            left_s = max(deadline_s - time.monotonic(), 0.001)
            try:
                file = ("speech.wav", audio, "audio/wav")
                response = self._client.post(url, data=fields, files={"file": file}, timeout=left_s)
            except httpx2.HTTPError as error:
                problem = self._failure(f"can't be reached ({type(error).__name__})")
                asked_wait_s = None
            else:
                if response.is_success:
                    return self._parsed(response)
                problem = self._failure(_complaint(response))
                if response.status_code not in _RETRIED:
                    raise problem
                asked_wait_s = _retry_after_s(response)
            # Some chance in it, so that those who failed together don't come back together.
            pause_s = asked_wait_s if asked_wait_s is not None else wait_s * random.uniform(0.75, 1)
            if not retries_left or time.monotonic() + pause_s >= deadline_s:
                break
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        raise problem

    def _parsed(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not (isinstance(answer, dict) and isinstance(answer.get("text"), str)):
            raise self._failure("answers with something else than a transcription")
        return answer

    def _failure(self, what: str) -> EngineError:
        return EngineError(f"The service behind {self._name} {what}.")


def _wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as recording:
        recording.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        recording.writeframes(encode(samples, _PCM))
    return file.getvalue()


def _tokens(answer: dict[str, Any], size: int) -> tuple[Token, ...]:
    """The tokens that a service tells, else the words of its text; each begins with its space.

    `size` is how many samples of speech there are.
    """
    entries = answer.get("logprobs")
    if isinstance(entries, list) and entries:
        try:
            return tuple(Token(str(entry["token"]), float(entry["logprob"])) for entry in entries)
        except (KeyError, TypeError, ValueError):
            pass  # not in OpenAI's form: the text is there all the same
    words = answer["text"].split()
    spans = _spans(words, answer.get("words"), size)
    return tuple(Token(f" {word}", UNKNOWN_LOGPROB, span=span) for word, span in zip(words, spans, strict=True))


def _spans(words: Sequence[str], entries: Any, size: int) -> Sequence[tuple[int, int] | None]:
    """When the words of a text were said, by the service's own list, which cuts and writes them in its own way.

    The letters tell which are which; where they differ, nothing is known.
    """
    try:
        parts = [(letters_of(str(entry["word"])), *_samples(entry, size)) for entry in entries or ()]
    except (KeyError, TypeError, ValueError):  # not in OpenAI's form
        parts = []
    if "".join(letters for letters, _, _ in parts) != "".join(map(letters_of, words)):
        return [None] * len(words)
    of_letters = [(begin, end) for letters, begin, end in parts for _ in letters]
    spans, told, behind = list[tuple[int, int] | None](), 0, 0
    for word in words:
        own = of_letters[told : told + len(letters_of(word))]
        begin, behind = (own[0][0], own[-1][1]) if own else (behind, behind)
        told += len(own)
        spans.append((begin, behind))
    return spans


def _samples(entry: dict[str, Any], size: int) -> tuple[int, int]:
    """Begin and end of a word. Raises ValueError, TypeError, KeyError: there are none."""
    begin, end = (min(max(round(float(entry[name]) * SAMPLE_RATE), 0), size) for name in ("start", "end"))
    return begin, max(begin, end)


def _complaint(response: httpx2.Response) -> str:
    """What a service says is wrong. Of keys nothing is passed on: its message may show part of ours."""
    status = response.status_code
    if status in (401, 403):
        return f"refuses our key ({status})"
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    return f"answers {status}: {str(message)[:_MAX_MESSAGE].rstrip('.')}"


def _retry_after_s(response: httpx2.Response) -> float | None:
    """How long the service asks to wait, where it says so in seconds."""
    try:
        return max(float(response.headers["retry-after"]), 0.0)
    except (KeyError, ValueError):
        return None

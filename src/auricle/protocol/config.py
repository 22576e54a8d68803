"""What a session can be told, free of any dialect, and which models it can name.

The inner objects are those that both dialects share on the wire; only the frame around them differs, see `ga.py` and
`beta.py`. Fields, ranges and defaults: OpenAI's API reference, and for `silence_duration_ms` the live service, which
answers 200 where the reference says 500.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from auricle.audio.formats import AudioFormat
from auricle.errors import ClientError
from auricle.protocol.validation import joined_path, one_of

LOGPROBS: Literal["item.input_audio_transcription.logprobs"] = "item.input_audio_transcription.logprobs"
WORDS: Literal["item.input_audio_transcription.words"] = "item.input_audio_transcription.words"
"""When each word was said: an extension."""

SELF_COMMITTING_MODELS = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""How the names begin of models whose clients commit by themselves. They refuse turn detection at OpenAI, so LiveKit
leaves the field out and relies on its absence meaning none."""


MAX_PROMPT_LENGTH = 32_000
MAX_KEYWORDS = 300
"""Sessions are told back whole in one event, which must stay below the 1 MiB that clients take."""

Name = Annotated[str, Field(max_length=256)]


class Setting(BaseModel):
    """Base of all setting objects: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _absent(value: object) -> bool:
    return value is None


class Pcm(Setting):
    """16-bit little-endian mono PCM. OpenAI takes only 24 kHz; here any rate from 8 to 48 kHz is resampled."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: int = Field(24_000, ge=8_000, le=48_000, description="Hertz")

    @property
    def audio_format(self) -> AudioFormat:
        return AudioFormat(self.type, self.rate)


class G711(Setting):
    """G.711 µ-law (`audio/pcmu`) or A-law (`audio/pcma`), 8 kHz."""

    type: Literal["audio/pcmu", "audio/pcma"]

    @property
    def audio_format(self) -> AudioFormat:
        return AudioFormat(self.type, 8_000)


InputFormat = Annotated[Pcm | G711, Field(discriminator="type")]


class ServerVad(Setting):
    """Turns end after a length of silence. The last three fields steer replies and have no meaning here."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(200, ge=0, le=60_000)
    create_response: bool | None = Field(None, exclude=True)
    interrupt_response: bool | None = Field(None, exclude=True)
    idle_timeout_ms: int | None = Field(None, exclude=True)


class SemanticVad(Setting):
    """Turns end when a model judges the utterance complete. The last two fields are taken and have no meaning here."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool | None = Field(None, exclude=True)
    interrupt_response: bool | None = Field(None, exclude=True)


TurnDetection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class NoiseReduction(Setting):
    """Noise reduction for a microphone near the mouth or far from it.

    At strength 1 all noise is taken out; below, noise gets quieter by 100 dB times the strength at most.
    """

    type: Literal["near_field", "far_field"]
    strength: float = Field(1.0, ge=0, le=1)


def _without_markup(keyword: str) -> str:
    if any(character in keyword for character in "<>\r\n"):
        raise PydanticCustomError("keyword", "Keywords may not contain '<', '>' or line breaks.")
    return keyword


DEFAULT_DELAY = "medium"
"""What sessions get that ask for no `delay`."""


class Transcription(Setting):
    """Which model transcribes, and what it is told beforehand."""

    model: Name = Field("", description="Empty: the server's default model")
    language: Name | None = Field(None, description="ISO 639-1, such as `en`")
    prompt: str | None = Field(None, max_length=MAX_PROMPT_LENGTH)
    languages: list[Name] | None = Field(None, min_length=1, max_length=100, exclude_if=_absent)
    keywords: list[Annotated[Name, AfterValidator(_without_markup)]] | None = Field(
        None, max_length=MAX_KEYWORDS, exclude_if=_absent
    )
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = Field(None, exclude_if=_absent)


class Translation(Transcription):
    """The same for a text that is wanted in English, whatever is spoken. No session can ask for it."""


Include = Literal["item.input_audio_transcription.logprobs", "item.input_audio_transcription.words"]


class SessionConfig(Setting):
    """Everything that a client can set on a transcription session."""

    format: InputFormat = Pcm()
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: TurnDetection | None = ServerVad()
    turn_detection_given: bool = False
    """Whether the client ever said how turns are detected. If not, the model decides, see `SELF_COMMITTING_MODELS`."""
    include: list[Include] | None = None

    @property
    def effective_noise_reduction(self) -> NoiseReduction | None:
        """The noise reduction, if there are turns to detect and it takes anything out."""
        has_effect = self.turn_detection and self.noise_reduction and self.noise_reduction.strength
        return self.noise_reduction if has_effect else None

    def with_default_turn_detection(self) -> SessionConfig:
        """The same settings with turn detection as the model implies it, where the client has never given it."""
        if self.turn_detection_given:
            return self
        commits_itself = self.transcription is not None and self.transcription.model.startswith(SELF_COMMITTING_MODELS)
        return self.model_copy(update={"turn_detection": None if commits_itself else ServerVad()})


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a model before it is loaded."""

    name: str
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that it understands; none: that is not known, and any is taken."""
    max_batch: int = 1
    """Most utterances that it decodes together."""
    has_logprobs: bool = True
    """Whether it tells how likely its tokens are."""
    has_word_times: bool = False
    """Whether it can tell when words were said."""
    can_translate: bool = False
    """Whether it gives the text in English where another language is spoken."""


class ModelDirectory:
    """The models that sessions can name, and the other names they go by. Immutable; made once from the settings."""

    def __init__(
        self,
        models: Sequence[ModelInfo],
        aliases: Mapping[str, str],
        default: str,
        *,
        can_judge_turns: bool = True,
        can_reduce_noise: bool = True,
    ) -> None:
        """`aliases` gives a model's name for each further name; `default` is the model of a session that names none.

        The last two say whether there are models for `semantic_vad` and `noise_reduction`. Raises ValueError: an alias
        or the default names no model.
        """
        by_name = {model.name: model for model in models}
        for name in [*aliases.values(), default]:
            if name not in by_name:
                raise ValueError(f"There is no model {name!r}. There are: {', '.join(by_name)}.")
        self.models = tuple(models)
        self.default = default
        self.can_judge_turns = can_judge_turns
        self.can_reduce_noise = can_reduce_noise
        self._by_name = by_name | {alias: by_name[name] for alias, name in aliases.items()}

    @property
    def names(self) -> list[str]:
        """All names that a session can use, models first."""
        return list(self._by_name)

    def check_turn_detection(self, turn_detection: TurnDetection | None, param: str) -> None:
        """Raises ClientError: there is no model for it. `param` is the wire's path to the object."""
        if isinstance(turn_detection, SemanticVad) and not self.can_judge_turns:
            raise ClientError(
                "invalid_value",
                "Invalid value: 'semantic_vad'. This server has no model that judges turns: install auricle[semantic], "
                "or use 'server_vad'.",
                f"{param}.type",
            )

    def check_noise_reduction(self, noise_reduction: NoiseReduction | None, param: str) -> None:
        """Raises ClientError: there is no model for it. `param` is the wire's path to the object."""
        if noise_reduction and not self.can_reduce_noise:
            raise ClientError(
                "invalid_value",
                f"Invalid value: '{noise_reduction.type}'. This server has no model that reduces noise: install "
                "auricle[denoise], or set it to null.",
                f"{param}.type",
            )

    def check_logprobs(self, name: str, param: str) -> None:
        """Raises ClientError: the model with this name tells no log-probabilities. `param` is what asks for them."""
        model = self.find(name)
        if model is not None and not model.has_logprobs:
            message = f"The model '{name}' tells no log-probabilities; leave out '{param}'."
            raise ClientError("invalid_value", message, param)

    def has_word_times(self, name: str) -> bool:
        """Whether the model with this name can tell when words were said."""
        model = self.find(name)
        return model is not None and model.has_word_times

    def check_word_times(self, name: str, param: str) -> None:
        """Raises ClientError: the model with this name can't tell when words were said. `param` is what asks for it."""
        if not self.has_word_times(name):
            message = f"The model '{name}' can't tell when words were said, which '{param}' asks for."
            raise ClientError("invalid_value", message, param)

    def check_include(self, include: Sequence[Include], name: str, param: str) -> None:
        """Raises ClientError: the model with this name can't tell something of what is to be included."""
        if LOGPROBS in include:
            self.check_logprobs(name, param)
        if WORDS in include:
            self.check_word_times(name, param)

    def check_translation(self, name: str, param: str) -> None:
        """Raises ClientError: the model with this name can't translate. `param` is what names it."""
        model = self.find(name)
        if model is not None and not model.can_translate:
            able = [name for name in self.names if self._by_name[name].can_translate]
            hint = f"Supported values are: {one_of(able)}." if able else "No other model of this server can."
            raise ClientError("invalid_value", f"The model '{name}' can't translate. {hint}", param)

    def find(self, name: str) -> ModelInfo | None:
        """The model behind a name or alias."""
        return self._by_name.get(name)

    def resolve(self, transcription: Transcription, param: str) -> Transcription:
        """The same settings with the default model where none is named. `param` is the wire's path to the object.

        Raises ClientError: there is no such model, or it doesn't speak the language.
        """
        name = transcription.model or self.default
        model = self.find(name)
        if model is None:
            raise ClientError(
                "invalid_value",
                f"Invalid value: '{name}'. Supported values are: {one_of(self.names)}.",
                joined_path(param, "model"),
            )
        if transcription.language is not None and not _speaks(model, transcription.language):
            raise _unspoken(model, transcription.language, joined_path(param, "language"))
        if transcription.languages and not any(_speaks(model, language) for language in transcription.languages):
            raise _unspoken(model, ", ".join(transcription.languages), joined_path(param, "languages"))
        return transcription.model_copy(update={"model": name})


def _unspoken(model: ModelInfo, language: str, param: str) -> ClientError:
    message = f"Invalid value: '{language}'. The model '{model.name}' understands: {one_of(model.languages)}."
    return ClientError("invalid_value", message, param)


def _speaks(model: ModelInfo, language: str) -> bool:
    """Whether the model knows the language; a region (`en-US`) is allowed and plays no part."""
    return not model.languages or without_region(language) in model.languages


def without_region(language: str) -> str:
    """The language itself: `en` of `en-US`."""
    return language.replace("_", "-").split("-")[0].lower()


_TAGGED_UNIONS = frozenset({"format", "turn_detection"})
"""Objects of several kinds with different fields."""


def merged(current: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`current` with the fields of `patch` laid over it, object by object; absent fields stay as they are.

    An object of another kind replaces the old one whole. So does one of no kind where it needs one: the live service
    refuses it, and validation of the result will say so.
    """
    result = dict(current)
    for key, value in patch.items():
        before = result.get(key)
        result[key] = value
        if not (isinstance(before, Mapping) and isinstance(value, Mapping)):
            continue
        if key not in _TAGGED_UNIONS or before["type"] == value.get("type"):
            result[key] = merged(before, value)
    return result

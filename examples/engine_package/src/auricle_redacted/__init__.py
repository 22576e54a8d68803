"""An engine in a package of its own: `redacted/NAME` is the embedded model with some words hidden.

[models."redacted/no-names"]
words = ["Alice", "Bob"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from auricle.engines.base import (
    Engine,
    Family,
    ModelInfo,
    ModelSettings,
    ModelSpec,
    Token,
    Transcript,
    Utterance,
    words_of,
)
from auricle.engines.moonshine import MoonshineModel
from auricle.engines.rolling import RollingEngine


class RedactedSettings(ModelSettings):
    """What can be set about a model."""

    words: tuple[str, ...] = Field(min_length=1, description="Words to hide")


class RedactedFamily(Family):
    """What the entry point names."""

    settings = RedactedSettings

    def info(self, spec: ModelSpec) -> ModelInfo:
        return ModelInfo(spec.name, languages=("en",), max_batch=spec.settings.max_batch or 1)

    def load(self, spec: ModelSpec, threads: int) -> Engine:
        model = MoonshineModel.embedded(threads=threads)
        model.warm_up()
        return RollingEngine(RedactingModel(model, spec.settings.words))


class RedactingModel:
    """Hides words in what another model finds. An `OfflineModel`: whole utterances in, tokens out."""

    def __init__(self, model: MoonshineModel, words: Sequence[str]) -> None:
        self._model = model
        self._words = {word.casefold() for word in words}

    def transcribe(self, utterances: Sequence[Utterance]) -> list[Transcript]:
        # Drafts and context hold our stars, which the model has never said.
        plain = [replace(utterance, draft=(), context=None) for utterance in utterances]
        return [replace(found, tokens=self._redacted(found.tokens)) for found in self._model.transcribe(plain)]

    def _redacted(self, tokens: Sequence[Token]) -> tuple[Token, ...]:
        result: list[Token] = []
        for word in words_of(tokens):
            part = tokens[len(result) : word.end]
            result += [replace(token, text=_stars(token.text)) for token in part] if word.key in self._words else part
        return (*result, *tokens[len(result) :])


def _stars(text: str) -> str:
    return "".join("*" if character.isalnum() else character for character in text)

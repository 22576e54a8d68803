"""Which models there are: families of them, and the models that the settings have a server offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pydantic import ValidationError

from auricle.engines.base import Engine, EngineError, Family, ModelSpec, SpeechDetector, TurnJudge
from auricle.engines.moonshine import MoonshineFamily
from auricle.engines.sherpa import SherpaFamily
from auricle.engines.upstream import UpstreamFamily
from auricle.engines.whisper import WhisperFamily
from auricle.protocol.config import ModelDirectory
from auricle.settings import DEFAULT_MODEL, Settings

ENTRY_POINTS = "auricle.engines"
"""The group of entry points by which other packages add families."""

_FAMILIES: Mapping[str, type[Family]] = {
    "moonshine": MoonshineFamily,
    "sherpa": SherpaFamily,
    "upstream": UpstreamFamily,
    "whisper": WhisperFamily,
}
"""Our own."""


@cache
def _others() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def family_names() -> list[str]:
    """The families that are installed."""
    return sorted({*_FAMILIES, *_others()})


def find_family(spec: ModelSpec) -> Family:
    """The family of a model; of other packages only this one's is imported. Raises ValueError: there is none."""
    if own := _FAMILIES.get(spec.family):
        return own()
    if (point := _others().get(spec.family)) is None:
        beginnings = ", ".join(f"{name}/" for name in family_names())
        raise ValueError(f"There is no model {spec.name!r}. There is {DEFAULT_MODEL}; names begin with {beginnings}.")
    try:
        family: type[Family] = point.load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The engine {spec.family!r} ({point.value}) can't be imported: {error}") from error
    return family()


def load_engine(spec: ModelSpec, threads: int) -> Engine:
    """A model, warm; `threads` are for one decoding step. Raises EngineError: it can't be had."""
    return find_family(spec).load(spec, threads)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The models that a server offers: what sessions can name, and what loads them. Travels between processes."""

    directory: ModelDirectory
    specs: Mapping[str, ModelSpec]
    """By the models' own names."""

    def spec(self, name: str) -> ModelSpec:
        """The model behind a name or alias that the directory knows."""
        info = self.directory.find(name)
        assert info is not None, "the directory has checked the name"
        return self.specs[info.name]


def catalog(settings: Settings) -> Catalog:
    """The embedded model, those that the settings list, and those that they name as default or behind an alias.

    Raises ValueError: a model, or what is set about it, makes no sense.
    """
    default = settings.model
    aliases = {alias: name or default for alias, name in settings.aliases.items()}
    # In this order, and each once.
    names = dict.fromkeys([DEFAULT_MODEL, *settings.models, default, *aliases.values()])
    specs = {name: _spec(name, settings.models.get(name, {})) for name in names}
    infos = [find_family(spec).info(spec) for spec in specs.values()]
    directory = ModelDirectory(
        infos,
        aliases,
        default,
        can_judge_turns=turn_judge() is not None,
        can_reduce_noise=denoised_detector() is not None,
    )
    return Catalog(directory, specs)


def _spec(name: str, values: Mapping[str, object]) -> ModelSpec:
    family = find_family(ModelSpec(name, None))
    try:
        return ModelSpec(name, family.settings.model_validate(values))
    except ValidationError as error:
        # Its own text would show the value, which may be a key.
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"models.{name}{where and '.' + where}: {message}") from None


def turn_judge() -> TurnJudge | None:
    """The model for `semantic_vad`, not loaded; None: it is not installed."""
    from auricle.engines.smart_turn import SmartTurnJudge

    try:
        return SmartTurnJudge.embedded()
    except EngineError:
        return None


def denoised_detector() -> SpeechDetector | None:
    """The models for `noise_reduction`, not loaded; None: they are not installed."""
    from auricle.engines.denoised import DenoisedDetector

    try:
        return DenoisedDetector.embedded()
    except EngineError:
        return None

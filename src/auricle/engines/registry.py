"""Which models there are, and how each is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auricle.engines.base import Engine, ModelInfo
from auricle.protocol.config import ModelDirectory


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """A model that can be loaded. `load` takes the number of threads for a step; the engine comes warm."""

    info: ModelInfo
    load: Callable[[int], Engine]


def _load_moonshine(threads: int) -> Engine:
    from auricle.engines.moonshine import MoonshineModel
    from auricle.engines.rolling import RollingEngine

    model = MoonshineModel.embedded(threads=threads)
    model.warm_up()
    return RollingEngine(model)


ENGINES: Mapping[str, EngineSpec] = {
    spec.info.name: spec for spec in (EngineSpec(ModelInfo("moonshine/tiny-en", languages=("en",)), _load_moonshine),)
}
"""All models by name."""


def model_directory(default: str, aliases: Mapping[str, str]) -> ModelDirectory:
    """What sessions can name: all models, and their aliases, of which an empty one means the default.

    Raises ValueError: a name is not known.
    """
    names = {alias: name or default for alias, name in aliases.items()}
    return ModelDirectory([spec.info for spec in ENGINES.values()], names, default)

"""Which models there are, and how each is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auricle.engines.base import Engine, EngineError, ModelInfo, SpeechDetector, TurnJudge
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
    infos = [spec.info for spec in ENGINES.values()]
    return ModelDirectory(
        infos,
        names,
        default,
        can_judge_turns=turn_judge() is not None,
        can_reduce_noise=denoised_detector() is not None,
    )


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

"""Families, and the models that settings offer. Nothing is loaded but where a test says so."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from fakes import LengthEngine

from auricle.engines import registry
from auricle.engines.base import Engine, EngineError, Family, ModelInfo, ModelSettings, ModelSpec
from auricle.engines.registry import catalog, family_names, find_family, load_engine
from auricle.settings import DEFAULT_MODEL, Settings

SECRET = "sk-very-secret"


class ToySettings(ModelSettings):
    key: str = ""
    size: int = 1


class ToyFamily(Family):
    """A family of another package."""

    settings = ToySettings

    def info(self, spec: ModelSpec) -> ModelInfo:
        if spec.name_in_family == "nothing":
            raise ValueError(f"There is no {spec.name}.")
        return ModelInfo(spec.name, spec.settings.languages or ("fr", "de"), spec.settings.max_batch or 4)

    def load(self, spec: ModelSpec, threads: int) -> Engine:
        return LengthEngine()


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What other packages would declare."""
    points = (
        EntryPoint("toy", f"{__name__}:ToyFamily", registry.ENTRY_POINTS),
        EntryPoint("broken", "no_such_package:Family", registry.ENTRY_POINTS),
        EntryPoint("moonshine", "no_such_package:Family", registry.ENTRY_POINTS),
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.ENTRY_POINTS else ())
    monkeypatch.setattr("importlib.metadata.EntryPoint.load", _load)
    registry._others.cache_clear()
    yield
    registry._others.cache_clear()


def _load(point: EntryPoint) -> object:
    """This file has no name that could be imported."""
    if point.module == __name__:
        return globals()[point.attr]
    raise ModuleNotFoundError(f"No module named '{point.module}'")


def offered(**settings: object) -> registry.Catalog:
    return catalog(Settings.model_validate(settings))


def test_the_embedded_model_is_always_there() -> None:
    assert [model.name for model in offered().directory.models] == [DEFAULT_MODEL]
    assert offered(models={f"{DEFAULT_MODEL}-2": {"path": "/"}}).directory.default == DEFAULT_MODEL


@pytest.mark.usefixtures("entry_points")
def test_a_name_is_enough_to_offer_a_model() -> None:
    models = offered(
        model="toy/large", aliases={"whisper-1": "toy/small", "gpt-4o-transcribe": ""}, models={"toy/x": {}}
    )
    assert [model.name for model in models.directory.models] == [DEFAULT_MODEL, "toy/x", "toy/large", "toy/small"]
    assert models.directory.default == "toy/large"
    assert models.spec("whisper-1").name == "toy/small"
    assert models.spec("gpt-4o-transcribe").name == "toy/large"


@pytest.mark.usefixtures("entry_points")
def test_a_model_is_what_its_family_and_the_settings_say() -> None:
    models = offered(models={"toy/a/b": {"size": 7}, "toy/c": {"languages": ["it"], "max_batch": 2}})
    assert models.directory.find("toy/a/b") == ModelInfo("toy/a/b", ("fr", "de"), 4)
    assert models.directory.find("toy/c") == ModelInfo("toy/c", ("it",), 2)
    spec = models.spec("toy/a/b")
    assert (spec.family, spec.name_in_family, spec.settings.size) == ("toy", "a/b", 7)
    assert isinstance(load_engine(spec, 1), LengthEngine)


@pytest.mark.usefixtures("entry_points")
def test_families_of_other_packages_are_listed_and_ours_stay_ours() -> None:
    assert {"toy", "broken", "moonshine"} <= set(family_names())
    assert type(find_family(ModelSpec(DEFAULT_MODEL, None))).__name__ == "MoonshineFamily"


@pytest.mark.usefixtures("entry_points")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"model": "nobody/small"}, "There is no model 'nobody/small'.*toy/"),
        ({"models": {"small": {}}}, "There is no model 'small'"),
        ({"models": {"toy/nothing": {}}}, "There is no toy/nothing"),
        ({"models": {"broken/small": {}}}, "'broken'.*no_such_package"),
        ({"models": {"toy/a": {"size": "many"}}}, r"models\.toy/a\.size: .*integer"),
        ({"models": {"toy/a": {"sise": 1}}}, r"models\.toy/a\.sise: Extra inputs"),
        ({"models": {"toy/a": {"max_batch": 0}}}, r"models\.toy/a\.max_batch: "),
        ({"models": {"toy/a": {"load": "never"}}}, r"models\.toy/a\.load: Input should be 'start' or 'use'"),
        ({"models": {"toy/a": {"idle_s": 0}}}, r"models\.toy/a\.idle_s: .*greater than 0"),
        ({"models": {"moonshine/mine": {}}}, r'moonshine/mine needs its folder.*models\."moonshine/mine".*base-en'),
    ],
)
def test_a_model_that_makes_no_sense_is_a_clear_error(settings: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        offered(**settings)


@pytest.mark.usefixtures("entry_points")
def test_keys_in_the_models_settings_are_never_shown() -> None:
    settings = Settings(models={"toy/a": {"key": SECRET}, "toy/b": {"key": [SECRET]}})
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in shown
    with pytest.raises(ValueError, match=r"models\.toy/b\.key") as caught:
        catalog(settings)
    assert SECRET not in str(caught.value)


def test_a_model_that_is_not_in_its_folder_is_a_clear_error(tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    models = offered(models={"moonshine/lost": {"path": str(lost)}, "moonshine/empty": {"path": str(tmp_path)}})
    with pytest.raises(EngineError, match=f"moonshine/lost.*{lost}.*`path`"):
        load_engine(models.spec("moonshine/lost"), 1)
    with pytest.raises(EngineError, match=str(tmp_path)):
        load_engine(models.spec("moonshine/empty"), 1)


def test_models_travel_between_processes() -> None:
    models = offered(models={"moonshine/copy": {"path": "/models/copy", "languages": ["en", "es"]}})
    copy = pickle.loads(pickle.dumps(models))
    assert copy.specs == models.specs
    assert copy.directory.names == models.directory.names

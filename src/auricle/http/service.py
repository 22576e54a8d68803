"""Routes about the server itself: its models and its health."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from auricle import __version__
from auricle.errors import ClientError
from auricle.http.requests import KeyedRoute, State

router = APIRouter()
keyed_router = APIRouter(route_class=KeyedRoute)


class Model(BaseModel):
    """A name that sessions can use for a model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "auricle"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    status: Literal["ok", "draining"]
    version: str
    sessions: int
    """Sessions that are open now."""


@keyed_router.get("/v1/models", tags=["Models"])
async def list_models(state: State) -> ModelList:
    """All models, and the further names that they go by."""
    return ModelList(data=[Model(id=name) for name in state.models.names])


@keyed_router.get("/v1/models/{name:path}", tags=["Models"])
async def retrieve_model(state: State, name: str) -> Model:
    """One model by name."""
    if state.models.find(name) is None:
        raise ClientError("model_not_found", f"The model '{name}' does not exist.", "model", status=404)
    return Model(id=name)


@router.get("/health", tags=["Service"])
async def health(state: State) -> Health:
    """Whether the server takes sessions. Needs no key."""
    status: Literal["ok", "draining"] = "draining" if state.is_draining else "ok"
    return Health(status=status, version=__version__, sessions=len(state.connections))

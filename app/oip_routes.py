"""The Open Inference Protocol's routes that need no speed: health, metadata, configuration, statistics, index."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from app import oip_views, views
from app.codec.facts import by_name
from app.http import BodyReader
from app.lifecycle import Lifecycle
from app.statistics import Statistics
from router.engine import Engine
from router.errors import MalformedBody

OIP = "Open Inference Protocol"

_TAGS: list[Any] = [OIP]


class IndexBody(msgspec.Struct):
    """What `POST /v2/repository/index` may be sent: whether only models that are ready are wanted."""

    ready: bool = False


def add_oip_routes(api: FastAPI, engine: Engine, statistics: Statistics, lifecycle: Lifecycle) -> None:
    """Adds all of them but inference, which the front answers."""
    _add_server_routes(api, engine, lifecycle)
    _add_repository_routes(api, engine, statistics)
    _add_model_routes(api, engine, statistics)


def _add_server_routes(api: FastAPI, engine: Engine, lifecycle: Lifecycle) -> None:
    @api.get("/v2", tags=_TAGS, summary="Server metadata")
    @api.get("/v2/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        return oip_views.server_metadata()

    @api.get("/v2/health/live", tags=_TAGS, summary="Liveness")
    @api.get("/v2/health/live/", include_in_schema=False)
    async def live() -> dict[str, bool]:
        return {"live": True}

    @api.get("/v2/health/ready", tags=_TAGS, summary="Readiness")
    @api.get("/v2/health/ready/", include_in_schema=False)
    async def ready() -> JSONResponse:
        if views.readiness(engine.snapshot, lifecycle.draining)[0]:
            return JSONResponse({"live": True, "ready": True})
        return _not_ready("no model can be answered at present, or the gateway is about to stop")


def _add_repository_routes(api: FastAPI, engine: Engine, statistics: Statistics) -> None:
    bodies = BodyReader(max_bytes=4096, timeout_s=10.0)

    @api.post("/v2/repository/index", tags=_TAGS, summary="Which models there are, and whether they are ready")
    @api.post("/v2/repository/index/", include_in_schema=False)
    async def index(request: Request) -> list[dict[str, Any]]:
        body = await bodies.read(by_name(request.scope["headers"]), request.receive)
        try:
            wanted = msgspec.json.decode(body, type=IndexBody) if body else IndexBody()
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedBody(f"The body is not a request for an index: {str(error)[:300]}.") from error
        return oip_views.repository_index(engine, wanted.ready)

    @api.get("/v2/models/stats", tags=_TAGS, summary="Statistics of all models")
    @api.get("/v2/models/stats/", include_in_schema=False)
    async def all_statistics() -> dict[str, Any]:
        return oip_views.model_statistics(statistics, engine, None, None)


def _add_model_routes(api: FastAPI, engine: Engine, statistics: Statistics) -> None:
    """Each with the version in its path, and without; each with a slash behind it, and without."""

    def metadata(model: str, version: str | None = None) -> Any:
        return oip_views.model_metadata(oip_views.model_spec(engine, model, version))

    def ready(model: str, version: str | None = None) -> Any:
        spec = oip_views.model_spec(engine, model, version)
        if oip_views.is_ready(engine, spec.name):
            return {"name": spec.name, "ready": True}
        return _not_ready(f"{spec.name} cannot be answered at present")

    def config(model: str, version: str | None = None) -> Any:
        return oip_views.model_config(oip_views.model_entry(engine, model, version))

    def stats(model: str, version: str | None = None) -> Any:
        return oip_views.model_statistics(statistics, engine, model, version)

    for ending, summary, answer in (
        ("", "Model metadata", metadata),
        ("/ready", "Model readiness", ready),
        ("/config", "Model configuration, in Triton's form", config),
        ("/stats", "Model statistics, in Triton's form", stats),
    ):
        _add_model_route(api, ending, summary, answer)


def _add_model_route(api: FastAPI, ending: str, summary: str, answer: Any) -> None:
    async def unversioned(model: str) -> Any:
        return answer(model)

    async def versioned(model: str, version: str) -> Any:
        return answer(model, version)

    for path, endpoint, whole in (
        ("/v2/models/{model}" + ending, unversioned, summary),
        ("/v2/models/{model}/versions/{version}" + ending, versioned, f"{summary} of a version"),
    ):
        name = f"{answer.__name__}_{endpoint.__name__}"
        api.add_api_route(path, endpoint, methods=["GET"], tags=_TAGS, summary=whole, name=name, response_model=None)
        api.add_api_route(f"{path}/", endpoint, methods=["GET"], include_in_schema=False, response_model=None)


def _not_ready(sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, HTTPStatus.SERVICE_UNAVAILABLE)

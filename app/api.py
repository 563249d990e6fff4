"""The routes that need no speed, on FastAPI, which also owns the OpenAPI document of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException
from starlette.routing import Route

from app import oip_views, views
from app.codec.problem import ErrorDocument, oip_error, problem
from app.front import Front
from app.lifecycle import Lifecycle
from app.oip_routes import OIP, add_oip_routes
from app.openapi import with_inference_routes
from app.policy_file import PolicyFile
from app.statistics import Statistics
from router.engine import Engine
from router.errors import InternalError, RouterError


def make_api(
    engine: Engine,
    policy_file: PolicyFile,
    registry: CollectorRegistry,
    statistics: Statistics,
    front: Front,
    lifecycle: Lifecycle,
    lifespan: Callable[[FastAPI], Any],
) -> FastAPI:
    """The FastAPI application behind the front."""
    # Its documentation pages carry their scripts with them: a gateway without a WAN shows them too.
    api = FastAPIOffline(
        title="Hybrid inference router",
        version=oip_views.VERSION,
        description="Decides, per request and on the device, whether a local model or a cloud GPU answers.",
        lifespan=lifespan,
        openapi_tags=[{"name": name} for name in ("inference", "state", "health", OIP)],
    )
    _add_state_routes(api, engine, policy_file)
    _add_health_routes(api, engine, lifecycle)
    add_oip_routes(api, engine, statistics, lifecycle)
    _add_metrics_route(api, registry)
    for path, endpoint in (
        ("/infer", front.native),
        ("/route/explain", front.explain),
        ("/v2/models/{model}/infer", front.oip),
        ("/v2/models/{model}/versions/{version}/infer", front.oip),
    ):
        api.router.routes.append(Route(path, _Endpoint(endpoint), methods=["POST"], include_in_schema=False))
    api.add_exception_handler(RouterError, _on_router_error)
    api.add_exception_handler(HTTPException, _on_http_exception)
    api.add_exception_handler(Exception, _on_exception)
    generate = api.openapi
    api.openapi = lambda: with_inference_routes(generate())  # type: ignore[method-assign]
    return api


class _Endpoint:
    """An ASGI callable in the form in which Starlette takes one as an endpoint."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


def _add_state_routes(api: FastAPI, engine: Engine, policy_file: PolicyFile) -> None:
    @api.get("/status", tags=["state"], summary="The snapshot that policies see")
    async def status() -> dict[str, Any]:
        return views.status(engine, policy_file.state.problems, time.monotonic())

    @api.get("/policy", tags=["state"], summary="The policy in force, and whether the file on disk is it")
    async def policy() -> dict[str, Any]:
        return views.policy(policy_file, engine.snapshot.generation)

    @api.get("/models", tags=["state"], summary="The models, what they take and give, and where they run")
    async def models() -> dict[str, Any]:
        return views.models(engine.deployment)


def _add_health_routes(api: FastAPI, engine: Engine, lifecycle: Lifecycle) -> None:
    @api.get("/healthz", tags=["health"], summary="Whether the process is alive")
    async def healthz() -> dict[str, bool]:
        return {"live": True}

    @api.get("/readyz", tags=["health"], summary="Whether any model can be answered, and each by whom")
    async def readyz(response: Response) -> dict[str, Any]:
        ready, document = views.readiness(engine.snapshot, lifecycle.draining)
        response.status_code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return document


def _add_metrics_route(api: FastAPI, registry: CollectorRegistry) -> None:
    @api.get("/metrics", tags=["state"], summary="Prometheus metrics", response_class=Response)
    async def metrics(request: Request) -> Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # what it makes of a version that is no number
            encode, content_type = choose_encoder("")
        return Response(encode(registry), media_type=content_type)


def _as_response(document: ErrorDocument) -> Response:
    headers = {name.decode(): value.decode() for name, value in document.headers}
    return Response(document.body, document.status, headers)


def _describe(request: Request, error: RouterError) -> Response:
    return _as_response((oip_error if request.url.path.startswith("/v2") else problem)(error))


async def _on_router_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)
    return _describe(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """FastAPI's own errors (no such path, wrong verb) in the form of ours."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    ours = type(phrase, (RouterError,), {"http_status": error.status_code, "code": _slug(phrase), "title": phrase})
    response = _describe(request, ours(f"{phrase}: {request.method} {request.url.path[:200]}. See /docs."))
    response.headers.update(error.headers or {})
    return response


async def _on_exception(request: Request, error: Exception) -> Response:
    return _describe(request, InternalError("An unexpected error; the gateway's log has the details."))


def _slug(phrase: str) -> str:
    return phrase.lower().replace(" ", "-")

"""Puts the service together: routes, queue, keys, errors and metrics."""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import prometheus_client
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse

from galip_keras.serving import routes
from galip_keras.serving.batching import Batcher
from galip_keras.serving.drawing import Drawer
from galip_keras.serving.jobs import EmbedJob
from galip_keras.serving.service import (
    Refusal,
    Service,
    check_key,
    first_error,
    log_failure,
)
from galip_keras.serving.signatures import signatures

_log = logging.getLogger("galip.serving")

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the service.

    Attributes:
        name: string. The name of the model for clients.
        api_key: string. The key that requests must carry, or None for no key.
        batch_size: int. The most images drawn together.
        max_wait: float. Seconds that an image may wait for others.
        max_queue: int. The most images that may wait. Beyond that, status 503.
        timeout: float. Seconds after which a request is given up, with status 503.
        max_body: int. The most bytes of a request body. Beyond that, status 413.
        page: bool. Whether to show a demo page at `/`.
        grpc_address: string, such as `"127.0.0.1:8500"`. Where to offer TensorFlow
            Serving's Predict over gRPC, or None to leave it out.
        cors_origins: sequence of strings, such as `"https://example.org"`. The web
            pages elsewhere that may use the service; `"*"` is all of them.
    """

    name: str = "galip"
    api_key: str | None = None
    batch_size: int = 8
    max_wait: float = 0.01
    max_queue: int = 256
    timeout: float = 60.0
    max_body: int = 65536
    page: bool = False
    grpc_address: str | None = None
    cors_origins: Sequence[str] = ()


def create_app(model: Any, **settings: Any) -> FastAPI:
    """Build the service.

    Args:
        model: object with `generate(prompts, seed, truncation)`, such as a
            `galip_keras.GALIPTextToImage`. `galip_keras.serving.signatures` says what
            more it may have.
        **settings: attributes of `Settings`.

    Returns:
        A `fastapi.FastAPI`.
    """
    chosen = Settings(**settings)
    registry = prometheus_client.CollectorRegistry()
    metrics = _Metrics(registry)
    drawer = Drawer(model, chosen.batch_size)
    limits = chosen.batch_size, chosen.max_wait, chosen.max_queue
    batcher = Batcher(drawer, *limits, metrics.batch)
    metrics.queue.set_function(lambda: batcher.waiting)
    service = Service(
        chosen.name, batcher, chosen.timeout, chosen.max_body, signatures(model)
    )

    @contextlib.asynccontextmanager
    async def lifespan(app):
        batcher.start()
        warming = asyncio.create_task(_warm_up(app, batcher, drawer))
        async with _over_grpc(service, chosen.grpc_address, chosen.api_key):
            yield
            app.state.is_ready = False
        warming.cancel()
        await batcher.stop()

    app = FastAPI(title="GALIP", version=Service.version, lifespan=lifespan)
    app.state.is_ready = False
    app.state.registry = registry
    app.state.service = service
    guarded = [Depends(_key_check(chosen.api_key))] if chosen.api_key else []
    app.include_router(routes.health)
    app.include_router(routes.tensorflow(chosen.name), dependencies=guarded)
    app.include_router(routes.images, dependencies=guarded)
    if drawer.interpolates:
        app.include_router(routes.between, dependencies=guarded)
    if chosen.page:
        app.include_router(routes.page)
    _handle_errors(app)
    _describe(app, service.signatures)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            expose_headers=["X-Seed"],
        )

    @app.middleware("http")
    async def count(request, call_next):
        start = time.perf_counter()
        response = await call_next(request)
        # One label for all unknown paths, so that probing adds no new ones.
        route = getattr(request.scope.get("route"), "path", "other")
        metrics.request(route, response.status_code, time.perf_counter() - start)
        return response

    return app


def _describe(app, signatures):
    plain = app.openapi

    def openapi():
        document = plain()
        routes.describe(document, signatures.values())
        return document

    app.openapi = openapi


def _over_grpc(service, address, api_key):
    if address is None:
        return contextlib.nullcontext()
    from galip_keras.serving import rpc

    return rpc.serving(service, address, api_key)


async def _warm_up(app, batcher, drawer):
    try:
        for size in drawer.sizes:
            # Twice, since a model may compile when a batch size comes again.
            for _ in range(2):
                images = await batcher.draw(drawer.examples(size))
        height, width = np.shape(images[0])[:2]
        app.state.service.size = f"{width}x{height}"
    except Exception:
        _log.exception("the model failed to warm up")
        return
    app.state.is_ready = True


class _Metrics:
    def __init__(self, registry: prometheus_client.CollectorRegistry) -> None:
        options: dict[str, Any] = {"registry": registry}
        self._requests = prometheus_client.Counter(
            "galip_requests", "Requests.", ["route", "status"], **options
        )
        self._seconds = prometheus_client.Histogram(
            "galip_request_seconds", "Time of a request.", ["route"],
            buckets=_SECONDS, **options,
        )  # fmt: skip
        self._images = prometheus_client.Counter(
            "galip_pictures", "Images drawn.", **options
        )
        self._batches = prometheus_client.Histogram(
            "galip_batch_pictures", "Images in a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64), **options,
        )  # fmt: skip
        self._drawing = prometheus_client.Histogram(
            "galip_batch_seconds", "Time of a batch.", buckets=_SECONDS, **options
        )
        self.queue = prometheus_client.Gauge(
            "galip_queue_pictures", "Images that wait.", **options
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, jobs: Sequence[Any], seconds: float) -> None:
        self._images.inc(sum(not isinstance(job, EmbedJob) for job in jobs))
        self._batches.observe(len(jobs))
        self._drawing.observe(seconds)


def _key_check(api_key):
    def check(request: Request):
        headers = request.headers
        check_key(api_key, headers.get("x-api-key") or headers.get("authorization", ""))

    return check


# === Errors ===


def _handle_errors(app):
    def answer(request, status, message, headers=None, details=()):
        # OpenAI's clients look for an object, TensorFlow Serving's for a string.
        is_openai = details or request.url.path.startswith("/v1/images")
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
        error.update(details)
        content = {"error": error if is_openai else message}
        return JSONResponse(content, status, headers)

    @app.exception_handler(Refusal)
    async def refused(request, error):
        return answer(request, error.status, str(error), error.headers, error.details)

    @app.exception_handler(RequestValidationError)
    async def invalid(request, error):
        return answer(request, 400, first_error(error.errors()))

    @app.exception_handler(404)
    async def unknown(request, error):
        return answer(request, 404, "there is nothing here")

    @app.exception_handler(405)
    async def not_allowed(request, error):
        return answer(request, 405, "not by this method", error.headers)

    @app.exception_handler(Exception)
    async def failed(request, error):
        return answer(request, 500, log_failure(error))

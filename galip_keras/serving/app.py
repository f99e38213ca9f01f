"""The service put together: routes, queue, keys, errors and figures."""

import asyncio
import contextlib
import logging
import time

import prometheus_client
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from galip_keras.serving import routes
from galip_keras.serving.batching import Batcher, Job
from galip_keras.serving.drawing import Drawer
from galip_keras.serving.service import (
    Refusal,
    Service,
    check_key,
    first_error,
    log_failure,
)

_log = logging.getLogger("galip.serving")

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def create_app(
    model,
    name="galip",
    api_key=None,
    batch_size=8,
    max_wait=0.01,
    max_queue=256,
    timeout=60.0,
    max_body=65536,
    page=False,
    grpc_address=None,
):
    """Builds the service.

    Args:
        model: what has `generate(prompts, seed, truncation)`, as `GALIPTextToImage`.
        name: string. What clients call the model.
        api_key: string. What requests have to carry; None for no key.
        batch_size: int. The most pictures drawn together.
        max_wait: float. Seconds that a picture may wait for others.
        max_queue: int. The most pictures that wait; then 503.
        timeout: float. Seconds after which a request is given up; 503.
        max_body: int. The most bytes of a request; then 413.
        page: bool. Whether `/` is a page to play with.
        grpc_address: string, as `"127.0.0.1:8500"`. Where TensorFlow Serving's Predict
            is offered over gRPC; None for nowhere.

    Returns:
        A `fastapi.FastAPI`.
    """
    registry = prometheus_client.CollectorRegistry()
    metrics = _Metrics(registry)
    drawer = Drawer(model, batch_size)
    batcher = Batcher(drawer, batch_size, max_wait, max_queue, metrics.batch)
    metrics.queue.set_function(lambda: batcher.waiting)
    service = Service(name, batcher, timeout, max_body)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        batcher.start()
        warming = asyncio.create_task(_warm_up(app, batcher, drawer.sizes))
        async with _over_grpc(service, grpc_address, api_key):
            yield
            app.state.is_ready = False
        warming.cancel()
        await batcher.stop()

    app = FastAPI(title="GALIP", version=Service.version, lifespan=lifespan)
    app.state.is_ready = False
    app.state.registry = registry
    app.state.service = service
    guarded = [Depends(_key_check(api_key))] if api_key else []
    app.include_router(routes.health)
    app.include_router(routes.tensorflow(name), dependencies=guarded)
    app.include_router(routes.images, dependencies=guarded)
    if drawer.interpolates:
        app.include_router(routes.between, dependencies=guarded)
    if page:
        app.include_router(routes.page)
    _handle_errors(app)
    _describe(app)

    @app.middleware("http")
    async def count(request, call_next):
        start = time.perf_counter()
        response = await call_next(request)
        # Of a path that is none, no new name is made for whoever tries many.
        route = getattr(request.scope.get("route"), "path", "other")
        metrics.request(route, response.status_code, time.perf_counter() - start)
        return response

    return app


def _describe(app):
    plain = app.openapi

    def openapi():
        document = plain()
        routes.describe(document)
        return document

    app.openapi = openapi


def _over_grpc(service, address, api_key):
    if address is None:
        return contextlib.nullcontext()
    from galip_keras.serving import rpc

    return rpc.serving(service, address, api_key)


async def _warm_up(app, batcher, sizes):
    try:
        for size in sizes:
            # Twice: models may compile a size when it comes again.
            for _ in range(2):
                await batcher.draw([Job("a picture", i) for i in range(size)])
    except Exception:
        _log.exception("the model does not run")
        return
    app.state.is_ready = True


class _Metrics:
    def __init__(self, registry):
        options = {"registry": registry}
        self._requests = prometheus_client.Counter(
            "galip_requests", "Requests.", ["route", "status"], **options
        )
        self._seconds = prometheus_client.Histogram(
            "galip_request_seconds", "Time of a request.", ["route"],
            buckets=_SECONDS, **options,
        )  # fmt: skip
        self._pictures = prometheus_client.Counter(
            "galip_pictures", "Pictures drawn.", **options
        )
        self._batches = prometheus_client.Histogram(
            "galip_batch_pictures", "Pictures of a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64), **options,
        )  # fmt: skip
        self._drawing = prometheus_client.Histogram(
            "galip_batch_seconds", "Time of a batch.", buckets=_SECONDS, **options
        )
        self.queue = prometheus_client.Gauge(
            "galip_queue_pictures", "Pictures that wait.", **options
        )

    def request(self, route, status, seconds):
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, count, seconds):
        self._pictures.inc(count)
        self._batches.observe(count)
        self._drawing.observe(seconds)


def _key_check(api_key):
    def check(request: Request):
        headers = request.headers
        check_key(api_key, headers.get("x-api-key") or headers.get("authorization", ""))

    return check


# === Errors ===


def _handle_errors(app):
    def answer(request, status, message, headers=None):
        # OpenAI's clients look for an object, TensorFlow Serving's for a string.
        is_openai = request.url.path.startswith("/v1/images")
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
        content = {"error": error if is_openai else message}
        return JSONResponse(content, status, headers)

    @app.exception_handler(Refusal)
    async def refused(request, error):
        return answer(request, error.status, str(error), error.headers)

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

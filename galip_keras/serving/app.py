"""The routes: TensorFlow Serving's REST, OpenAI's images, a browser's, and health."""

import asyncio
import base64
import contextlib
import hmac
import io
import json
import logging
import random
import time
from pathlib import Path
from typing import Annotated, Any

import prometheus_client
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from PIL import Image
from pydantic import ValidationError

from galip_keras.serving import schemas
from galip_keras.serving.batching import Batcher, Busy, Job
from galip_keras.serving.drawing import Drawer

_log = logging.getLogger("galip.serving")

# What stands in for a name where models have only one.
_VERSION = "1"

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Refusal(Exception):
    """A request that is not served: a status, and why."""

    def __init__(self, status, message, headers=None):
        super().__init__(message)
        self.status = status
        self.headers = headers


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

    Returns:
        A `fastapi.FastAPI`.
    """
    registry = prometheus_client.CollectorRegistry()
    metrics = _Metrics(registry)
    drawer = Drawer(model, batch_size)
    batcher = Batcher(drawer, batch_size, max_wait, max_queue, metrics.batch)
    metrics.queue.set_function(lambda: batcher.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        batcher.start()
        warming = asyncio.create_task(_warm_up(app, batcher, drawer.sizes))
        yield
        app.state.is_ready = False
        warming.cancel()
        await batcher.stop()

    app = FastAPI(title="GALIP", version=_VERSION, lifespan=lifespan)
    app.state.is_ready = False
    app.state.registry = registry
    app.state.service = _Service(name, batcher, timeout, max_body)
    guarded = [Depends(_key_check(api_key))] if api_key else []
    app.include_router(_health)
    app.include_router(_tensorflow(name), dependencies=guarded)
    app.include_router(_images, dependencies=guarded)
    if drawer.interpolates:
        app.include_router(_between, dependencies=guarded)
    if page:
        app.include_router(_page)
    _handle_errors(app)

    @app.middleware("http")
    async def count(request, call_next):
        start = time.perf_counter()
        response = await call_next(request)
        # Of a path that is none, no new name is made for whoever tries many.
        route = getattr(request.scope.get("route"), "path", "other")
        metrics.request(route, response.status_code, time.perf_counter() - start)
        return response

    return app


class _Service:
    """What routes share."""

    def __init__(self, name, batcher, timeout, max_body):
        self.name = name
        self.batcher = batcher
        self.timeout = timeout
        self.max_body = max_body

    async def draw(self, jobs):
        """PNG files of some jobs."""
        try:
            images = await asyncio.wait_for(self.batcher.submit(jobs), self.timeout)
        except Busy:
            raise _busy("too many pictures wait already") from None
        except asyncio.TimeoutError:
            raise _busy("the pictures took too long") from None
        return [_png(image) for image in images]

    async def read(self, request, schema):
        """The body of a request."""
        try:
            body = await asyncio.wait_for(self._body(request), self.timeout)
        except asyncio.TimeoutError:
            raise Refusal(408, "the request did not arrive in time") from None
        try:
            return schema.model_validate_json(body)
        except ValidationError as error:
            raise Refusal(400, _first_error(error.errors())) from None

    async def _body(self, request):
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.max_body:
                raise Refusal(413, f"more than {self.max_body} bytes")
        return bytes(body)


def _busy(reason):
    return Refusal(503, f"{reason}: try again", {"Retry-After": "1"})


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


async def _warm_up(app, batcher, sizes):
    try:
        for size in sizes:
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
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        given = request.headers.get("x-api-key") or given
        if not hmac.compare_digest(given.encode(), api_key.encode()):
            raise Refusal(401, "a key is needed: Authorization: Bearer KEY")

    return check


def _service(request: Request) -> _Service:
    return request.app.state.service


_WithService = Depends(_service)

# === Health ===

_health = APIRouter(tags=["health"])


@_health.get("/healthz", response_class=PlainTextResponse)
def healthz():
    """The process lives."""
    return "ok"


@_health.get("/readyz", response_class=PlainTextResponse)
def readyz(request: Request):
    """The model is loaded and warm."""
    if not request.app.state.is_ready:
        raise _busy("the model is not ready")
    return "ok"


@_health.get("/metrics", response_class=PlainTextResponse)
def prometheus(request: Request):
    """Figures for Prometheus."""
    text = prometheus_client.generate_latest(request.app.state.registry)
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


# === TensorFlow Serving's REST ===


def _body_of(schema):
    content = {"application/json": {"schema": schema.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}


def _tensorflow(name):
    """The routes of a model, as TensorFlow Serving has them."""
    router = APIRouter(tags=["TensorFlow Serving"])
    base = f"/v1/models/{name}"

    @router.get(base)
    @router.get(f"{base}/versions/{_VERSION}", include_in_schema=False)
    def status(request: Request):
        """Whether the model can be asked."""
        state = "AVAILABLE" if request.app.state.is_ready else "LOADING"
        ok = {"error_code": "OK", "error_message": ""}
        version = {"version": _VERSION, "state": state, "status": ok}
        return {"model_version_status": [version]}

    @router.get(f"{base}/metadata")
    @router.get(f"{base}/versions/{_VERSION}/metadata", include_in_schema=False)
    def metadata():
        """The signature: what it takes, and what it gives."""

        def tensor(dtype, tensor_name):
            shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
            return {"dtype": dtype, "tensor_shape": shape, "name": tensor_name}

        signature = {
            "inputs": {
                "prompt": tensor("DT_STRING", "serving_default_prompt:0"),
                "seed": tensor("DT_INT64", "serving_default_seed:0"),
            },
            "outputs": {
                "image_bytes": tensor("DT_STRING", "StatefulPartitionedCall:0")
            },
            "method_name": "tensorflow/serving/predict",
        }
        spec = {"name": name, "signature_name": "", "version": _VERSION}
        signatures = {"signature_def": {"serving_default": signature}}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    @router.post(f"{base}:predict", openapi_extra=_body_of(schemas.Predict))
    @router.post(
        f"{base}/versions/{_VERSION}:predict",
        openapi_extra=_body_of(schemas.Predict),
        include_in_schema=False,
    )
    async def predict(request: Request, service: _Service = _WithService):
        """Pictures of prompts and seeds, PNG in base64."""
        asked = await service.read(request, schemas.Predict)
        if (asked.instances is None) == (asked.inputs is None):
            raise Refusal(400, "give `instances` or `inputs`, one of them")
        if asked.inputs is None:
            jobs = [Job(x.prompt, x.seed) for x in asked.instances]
        else:
            prompts, seeds = asked.inputs.prompt, asked.inputs.seed
            if len(prompts) != len(seeds):
                raise Refusal(400, "`prompt` and `seed` must be as many")
            jobs = [Job(*x) for x in zip(prompts, seeds, strict=True)]
        images = [{"b64": _base64(png)} for png in await service.draw(jobs)]
        return {"predictions" if asked.inputs is None else "outputs": images}

    return router


def _base64(content):
    return base64.b64encode(content).decode()


# === Images ===

_images = APIRouter(tags=["images"])


@_images.get("/v1/models")
def models(service: _Service = _WithService):
    """The one model, as OpenAI's API lists models."""
    model = {"id": service.name, "object": "model", "created": 0, "owned_by": "galip"}
    return {"object": "list", "data": [model]}


@_images.post("/v1/images/generations", openapi_extra=_body_of(schemas.Generation))
async def generations(request: Request, service: _Service = _WithService):
    """Pictures of a prompt, as OpenAI's images API gives them."""
    asked = await service.read(request, schemas.Generation)
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    seeds = [(seed + i) % 2**63 for i in range(asked.n)]
    files = await service.draw([Job(asked.prompt, x, asked.truncation) for x in seeds])
    data = [
        {"b64_json": _base64(png), "seed": seed}
        for png, seed in zip(files, seeds, strict=True)
    ]
    return {"created": int(time.time()), "data": data}


_Prompt = Annotated[str, Query(min_length=1, max_length=schemas.MOST_CHARACTERS)]
_Seed = Annotated[int, Query(ge=0, lt=2**63)]
_Truncation = Annotated[float, Query(ge=0, le=10, allow_inf_nan=False)]
_Weight = Annotated[float, Query(ge=0, le=1, allow_inf_nan=False)]
_PNG: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {"image/png": {}}}},
}


async def _answer(service, job):
    (png,) = await service.draw([job])
    return Response(png, media_type="image/png")


@_images.get("/image", **_PNG)
async def image(
    prompt: _Prompt,
    seed: _Seed = 0,
    truncation: _Truncation = 1.0,
    service: _Service = _WithService,
):
    """A picture, for a browser."""
    return await _answer(service, Job(prompt, seed, truncation))


_between = APIRouter(tags=["images"])


@_between.get("/interpolation", **_PNG)
async def interpolation(
    prompt: _Prompt,
    other: _Prompt,
    weight: _Weight = 0.5,
    seed: _Seed = 0,
    truncation: _Truncation = 1.0,
    service: _Service = _WithService,
):
    """A picture on the way from a sentence (weight 0) to another (1)."""
    return await _answer(service, Job(prompt, seed, truncation, other, weight))


_page = APIRouter(include_in_schema=False)


@_page.get("/", response_class=HTMLResponse)
def page():
    return Path(__file__).with_name("page.html").read_text("utf-8")


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
        return answer(request, 400, _first_error(error.errors()))

    @app.exception_handler(404)
    async def unknown(request, error):
        return answer(request, 404, "there is nothing here")

    @app.exception_handler(405)
    async def not_allowed(request, error):
        return answer(request, 405, "not by this method", error.headers)

    @app.exception_handler(Exception)
    async def failed(request, error):
        # The reason is for the log alone.
        _log.error("a request failed", exc_info=error)
        return answer(request, 500, "it failed: see the log of the service")


def _first_error(errors):
    """The first of pydantic's errors in words."""
    error = errors[0]
    place = ".".join(str(part) for part in error["loc"] if part != "query")
    message = json.dumps(error["msg"])[1:-1]
    return f"{place}: {message}" if place else message

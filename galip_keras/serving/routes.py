"""The routes: TensorFlow Serving's REST, OpenAI's images, plain images, and health."""

import base64
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import prometheus_client
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic.json_schema import models_json_schema

from galip_keras.models.noise import fresh_seed
from galip_keras.serving import schemas
from galip_keras.serving.batching import Job
from galip_keras.serving.service import Refusal, Service, busy

_REF = "#/components/schemas/{model}"


def _service(request: Request) -> Service:
    return request.app.state.service


_WithService = Depends(_service)


def _errors(schema: Any) -> dict[int | str, dict[str, Any]]:
    return {
        "4XX": {"description": "The request is refused.", "model": schema},
        "5XX": {
            "description": "The service failed or is busy: try again.",
            "model": schema,
        },
    }


def _body_of(schema):
    # Routes read their bodies themselves, within limits; `describe` has the schema.
    content = {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}
    return {"requestBody": {"required": True, "content": content}}


def describe(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document the schemas of bodies, in place."""
    models: list[tuple[Any, Literal["validation"]]] = [
        (model, "validation") for model in (schemas.Predict, schemas.Generation)
    ]
    _, found = models_json_schema(models, ref_template=_REF)
    document["components"]["schemas"].update(found["$defs"])


# FastAPI makes a schema of an annotated result, unless `response_model` is None.

# === Health ===

health = APIRouter(tags=["health"], responses=_errors(schemas.Error))


@health.get("/healthz", response_class=PlainTextResponse, response_model=None)
def healthz() -> str:
    """Whether the process is alive."""
    return "ok"


@health.get("/readyz", response_class=PlainTextResponse, response_model=None)
def readyz(request: Request) -> str:
    """Whether the model is loaded and warm."""
    if not request.app.state.is_ready:
        raise busy("the model is not ready")
    return "ok"


@health.get("/metrics", response_class=PlainTextResponse)
def prometheus(request: Request) -> Response:
    """Metrics for Prometheus."""
    text = prometheus_client.generate_latest(request.app.state.registry)
    return Response(text, media_type=prometheus_client.CONTENT_TYPE_LATEST)


# === TensorFlow Serving's REST ===


def tensorflow(name: str) -> APIRouter:
    """The routes of a model, as TensorFlow Serving has them."""
    router = APIRouter(tags=["TensorFlow Serving"], responses=_errors(schemas.Error))
    base = f"/v1/models/{name}"

    @router.get(base)
    @router.get(f"{base}/versions/{Service.version}", include_in_schema=False)
    def status(request: Request):
        """Whether the model is available."""
        state = "AVAILABLE" if request.app.state.is_ready else "LOADING"
        ok = {"error_code": "OK", "error_message": ""}
        version = {"version": Service.version, "state": state, "status": ok}
        # OpenAI's clients ask for a model at the same address.
        return {"model_version_status": [version], **_openai_model(name)}

    @router.get(f"{base}/metadata")
    @router.get(f"{base}/versions/{Service.version}/metadata", include_in_schema=False)
    def metadata():
        """The inputs and outputs of the model."""

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
        spec = {"name": name, "signature_name": "", "version": Service.version}
        signatures = {"signature_def": {"serving_default": signature}}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    @router.post(f"{base}:predict", openapi_extra=_body_of("Predict"))
    @router.post(
        f"{base}/versions/{Service.version}:predict",
        openapi_extra=_body_of("Predict"),
        include_in_schema=False,
    )
    async def predict(request: Request, service: Service = _WithService):
        """Draw images from prompts and seeds, returned as PNG in base64."""
        asked = await service.read(request, schemas.Predict)
        if (asked.instances is None) == (asked.inputs is None):
            raise Refusal(400, "give either `instances` or `inputs`")
        if asked.instances is not None:
            jobs = [Job(x.prompt, x.seed) for x in asked.instances]
        elif asked.inputs is not None:
            jobs = [Job(*x) for x in asked.inputs.rows()]
        images = [{"b64": _base64(png)} for png in await service.draw(jobs)]
        return {"predictions" if asked.inputs is None else "outputs": images}

    return router


def _openai_model(name):
    return {"id": name, "object": "model", "created": 0, "owned_by": "galip"}


def _base64(content):
    return base64.b64encode(content).decode()


# === Images ===

images = APIRouter(tags=["images"], responses=_errors(schemas.Error))


@images.get("/v1/models", response_model=None)
def models(service: Service = _WithService) -> dict[str, Any]:
    """The one model, as OpenAI's API lists models."""
    return {"object": "list", "data": [_openai_model(service.name)]}


@images.get("/v1/models/{name}", include_in_schema=False)
def unknown_model(name: str, service: Service = _WithService) -> None:
    """Refuse: the one model has routes of its own."""
    if name == f"{service.name}:predict":
        raise Refusal(405, "not by this method", {"Allow": "POST"})
    service.check_name(name)


@images.post(
    "/v1/images/generations",
    response_model=None,
    openapi_extra=_body_of("Generation"),
    responses=_errors(schemas.OpenAIError),
)
async def generations(
    request: Request, service: Service = _WithService
) -> dict[str, Any]:
    """Draw images from a prompt, in the format of OpenAI's images API."""
    asked = await service.read(request, schemas.Generation)
    service.check_name(asked.model or service.name)
    service.check_size(asked.size)
    seed = fresh_seed() if asked.seed is None else asked.seed
    seeds = [(seed + i) % 2**63 for i in range(asked.n)]
    jobs = [Job(asked.prompt, x, asked.truncation) for x in seeds]
    files = await service.draw(jobs, asked.output_format, asked.output_compression)
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


async def _answer(service, prompt, seed, *others):
    seed = fresh_seed() if seed is None else seed
    (png,) = await service.draw([Job(prompt, seed, *others)])
    return Response(png, media_type="image/png", headers={"X-Seed": str(seed)})


@images.get("/image", **_PNG)
async def image(
    prompt: _Prompt,
    seed: _Seed | None = None,
    truncation: _Truncation = 1.0,
    service: Service = _WithService,
) -> Response:
    """Draw one image, as a PNG file."""
    return await _answer(service, prompt, seed, truncation)


between = APIRouter(tags=["images"], responses=_errors(schemas.Error))


@between.get("/interpolation", **_PNG)
async def interpolation(
    prompt: _Prompt,
    other: _Prompt,
    weight: _Weight = 0.5,
    seed: _Seed | None = None,
    truncation: _Truncation = 1.0,
    service: Service = _WithService,
) -> Response:
    """Draw an image between two prompts: weight 0 is `prompt`, 1 is `other`."""
    return await _answer(service, prompt, seed, truncation, other, weight)


page = APIRouter(include_in_schema=False)


@page.get("/", response_class=HTMLResponse, response_model=None)
def show_page() -> str:
    return Path(__file__).with_name("page.html").read_text("utf-8")

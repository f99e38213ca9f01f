"""The routes: TensorFlow Serving's REST, OpenAI's images, plain images, and health."""

import base64
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import prometheus_client
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic.json_schema import models_json_schema

from galip_keras.models.noise import fresh_seed
from galip_keras.serving import schemas
from galip_keras.serving.jobs import Job
from galip_keras.serving.service import Refusal, Service, busy, refusing
from galip_keras.serving.signatures import Signature

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


def describe(document: dict[str, Any], signatures: Iterable[Signature]) -> None:
    """Add to an OpenAPI document the schemas of bodies, in place."""
    requests: list[Any] = [signature.schema for signature in signatures]
    models: list[tuple[Any, Literal["validation"]]] = [
        (model, "validation") for model in (*requests, schemas.Generation)
    ]
    _, found = models_json_schema(models, ref_template=_REF)
    kinds = [{"$ref": _REF.format(model=model.__name__)} for model in requests]
    document["components"]["schemas"].update(found["$defs"], Predict={"anyOf": kinds})


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
    def metadata(service: Service = _WithService):
        """The inputs and outputs of the model's signatures."""
        found = {key: _definition(x) for key, x in service.signatures.items()}
        spec = {"name": name, "signature_name": "", "version": Service.version}
        signatures = {"signature_def": found}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    @router.post(f"{base}:predict", openapi_extra=_body_of("Predict"))
    @router.post(
        f"{base}/versions/{Service.version}:predict",
        openapi_extra=_body_of("Predict"),
        include_in_schema=False,
    )
    async def predict(request: Request, service: Service = _WithService):
        """Call a signature: draw PNG files in base64 from prompts and seeds, or else
        `embed` prompts or `generate` pixels from token ids and noise."""
        body = await service.body(request)
        with refusing():
            asked_for = schemas.Named.model_validate_json(body).signature_name
            signature = service.signature(asked_for)
            asked = signature.schema.model_validate_json(body)
        results = await service.predict(signature, asked)
        rows = [
            {"b64": _base64(x)} if isinstance(x, bytes) else x.tolist() for x in results
        ]
        # FastAPI would go through each pixel of what is not a response yet.
        return JSONResponse(
            {"outputs" if asked.instances is None else "predictions": rows}
        )

    return router


def _definition(signature):
    def tensor(tensor_name, found):
        dim = [{"size": str(size), "name": ""} for size in (-1, *found.shape)]
        shape = {"dim": dim, "unknown_rank": False}
        dtype = f"DT_{found.dtype.upper()}"
        return {"dtype": dtype, "tensor_shape": shape, "name": tensor_name}

    return {
        "inputs": {
            name: tensor(f"{signature.name}_{name}:0", found)
            for name, found in signature.inputs.items()
        },
        "outputs": {
            signature.output: tensor("StatefulPartitionedCall:0", signature.result)
        },
        "method_name": "tensorflow/serving/predict",
    }


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


@images.api_route("/v1/models/{name}", methods=["GET", "POST"], include_in_schema=False)
def unknown_model(name: str, service: Service = _WithService) -> None:
    """Refuse: the one model has routes of its own."""
    asked = name.removesuffix(":predict")
    try:
        service.check_name(asked)
    except Refusal as error:
        if asked == name:
            raise
        # TensorFlow Serving's clients look for a string.
        raise Refusal(404, str(error)) from error
    allowed = "GET" if asked == name else "POST"
    raise Refusal(405, "not by this method", {"Allow": allowed})


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

"""What all interfaces do with a request: check it, queue it, write PNG files."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from galip_keras.serving import schemas
from galip_keras.serving.batching import Batcher, Busy
from galip_keras.serving.jobs import Job, TokensJob
from galip_keras.serving.signatures import Signature

_log = logging.getLogger("galip.serving")

Schema = TypeVar("Schema", bound=BaseModel)


class Refusal(Exception):
    """Refuses a request.

    Args:
        status: int. The HTTP status.
        message: string. The reason, for the client.
        headers: mapping of strings. Headers of the response.
        **details: strings. More fields of an error in OpenAI's format.
    """

    def __init__(
        self,
        status: int,
        message: str,
        headers: Mapping[str, str] | None = None,
        **details: str,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.details = details


class Service:
    """A model behind a queue, with limits for requests.

    Args:
        name: string. What clients call the model.
        batcher: a `Batcher`.
        timeout: float. Seconds after which a request is given up.
        max_body: int. The most bytes of a request body.
        signatures: mapping of names to `Signature`, those of the model.

    Attributes:
        size: string. The size of an image, such as `"64x64"`; `"auto"` until the model
            has drawn one.
    """

    # TensorFlow Serving numbers the versions of a model. Here there is only one.
    version = "1"

    def __init__(
        self,
        name: str,
        batcher: Batcher,
        timeout: float,
        max_body: int,
        signatures: Mapping[str, Signature],
    ) -> None:
        self.name = name
        self.batcher = batcher
        self.timeout = timeout
        self.max_body = max_body
        self.signatures = signatures
        self.size = "auto"

    async def draw(
        self, jobs: Sequence[Job], file_format: str = "png", quality: int = 100
    ) -> list[bytes]:
        """Draw images.

        Args:
            jobs: sequence of `Job`.
            file_format: string. `"png"`, `"jpeg"` or `"webp"`.
            quality: int, 0 to 100, of a JPEG or WebP.

        Returns:
            A list of bytes, image files.

        Raises:
            Refusal: as `run` does.
        """
        images = await self.run(jobs)
        return [_encode(image, file_format, quality) for image in images]

    async def run(self, jobs: Sequence[Any]) -> list[Any]:
        """Do jobs of any kind.

        Args:
            jobs: sequence of jobs.

        Returns:
            A list of arrays: uint8 images, or text embeddings.

        Raises:
            Refusal: 400 if the model takes no prompts, 503 if the queue is full or the
                jobs take too long.
        """
        if schemas.DEFAULT_SIGNATURE not in self.signatures and not all(
            isinstance(job, TokensJob) for job in jobs
        ):
            raise Refusal(400, "the model has no tokenizer and takes no prompts")
        try:
            return await asyncio.wait_for(self.batcher.submit(jobs), self.timeout)
        except Busy:
            raise busy("too many requests are waiting") from None
        except asyncio.TimeoutError:
            raise busy("the answer took too long") from None

    def signature(self, name: str) -> Signature:
        """Find a signature of the model.

        Args:
            name: string. `""` is the default.

        Raises:
            Refusal: 400 if there is none of this name.
        """
        found = self.signatures.get(name or schemas.DEFAULT_SIGNATURE)
        if found is None:
            names = ", ".join(self.signatures)
            raise Refusal(400, f"there is no such signature: the model has {names}")
        return found

    async def predict(
        self, signature: Signature, asked: schemas.Predict
    ) -> list[bytes] | list[np.ndarray]:
        """Answer a predict request.

        Args:
            signature: `Signature` that is called.
            asked: an instance of its schema.

        Returns:
            A list of PNG files or arrays, one for each row.

        Raises:
            Refusal: as `run` does.
        """
        jobs = signature.jobs(asked)
        is_file = signature.result.dtype == "string"
        return await self.draw(jobs) if is_file else await self.run(jobs)

    def check_size(self, size: str) -> None:
        """Refuse a size that the model does not draw.

        Args:
            size: string, such as `"64x64"`, or `"auto"`.

        Raises:
            Refusal: 400 if it is another size than that of the model.
        """
        if "auto" not in (size, self.size) and size != self.size:
            raise Refusal(
                400, f"size must be {self.size} or auto: the model has one size",
                param="size", code="invalid_value",
            )  # fmt: skip

    def check_name(self, name: str) -> None:
        """Refuse a model that is not served.

        Raises:
            Refusal: 404 if it is not the name of the model.
        """
        if name != self.name:
            raise Refusal(
                404, f"the model {name!r} does not exist: this is {self.name}",
                param="model", code="model_not_found",
            )  # fmt: skip

    async def read(self, request: Any, schema: type[Schema]) -> Schema:
        """Read and validate the body of a request.

        Args:
            request: a `fastapi.Request`.
            schema: a subclass of `pydantic.BaseModel`.

        Returns:
            An instance of `schema`.

        Raises:
            Refusal: 400 if the body is invalid, 408 if it is late, 413 if too long.
        """
        body = await self.body(request)
        with refusing():
            return schema.model_validate_json(body)

    async def body(self, request: Any) -> bytes:
        """Read the body of a request.

        Args:
            request: a `fastapi.Request`.

        Raises:
            Refusal: 408 if the body is late, 413 if it is too long.
        """
        try:
            return await asyncio.wait_for(self._body(request), self.timeout)
        except asyncio.TimeoutError:
            raise Refusal(408, "the request did not arrive in time") from None

    async def _body(self, request: Any) -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.max_body:
                raise Refusal(413, f"the request has more than {self.max_body} bytes")
        return bytes(body)


def check_key(key: str, authorization: str) -> None:
    """Check the key of a request.

    Args:
        key: string. The right key.
        authorization: string. `Bearer KEY`, or the key alone.

    Raises:
        Refusal: 401 if the key is wrong or missing.
    """
    given = authorization.removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), key.encode()):
        raise Refusal(401, "a key is needed: Authorization: Bearer KEY")


def busy(reason: str) -> Refusal:
    """A `Refusal` that tells the client to retry."""
    return Refusal(503, f"{reason}: try again", {"Retry-After": "1"})


def log_failure(error: Exception) -> str:
    """Log an internal error. Return a message for the client without details."""
    _log.error("a request failed", exc_info=error)
    return "internal error: see the log of the service"


def _encode(image: Any, file_format: str, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, file_format, quality=quality)
    return file.getvalue()


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Turn validation errors into a `Refusal` with status 400."""
    try:
        yield
    except ValidationError as error:
        raise Refusal(400, first_error(error.errors())) from None


def first_error(errors: Sequence[Any]) -> str:
    """A message for the first of the errors that pydantic found."""
    error = errors[0]
    place = ".".join(str(part) for part in error["loc"] if part != "query")
    message = json.dumps(error["msg"].removeprefix("Value error, "))[1:-1]
    return f"{place}: {message}" if place else message

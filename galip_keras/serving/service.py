"""What every interface does with a request: check it, queue it, make a file of it."""

import asyncio
import contextlib
import hmac
import io
import json
import logging

from PIL import Image
from pydantic import ValidationError

from galip_keras.serving.batching import Busy

_log = logging.getLogger("galip.serving")


class Refusal(Exception):
    """A request that is not served: a status, and why."""

    def __init__(self, status, message, headers=None):
        super().__init__(message)
        self.status = status
        self.headers = headers


class Service:
    """A model behind a queue, with the limits of a request.

    Args:
        name: string. What clients call the model.
        batcher: `Batcher`.
        timeout: float. Seconds after which a request is given up.
        max_body: int. The most bytes of a request.
    """

    # What stands in for a number where models have only one.
    version = "1"

    def __init__(self, name, batcher, timeout, max_body):
        self.name = name
        self.batcher = batcher
        self.timeout = timeout
        self.max_body = max_body

    async def draw(self, jobs):
        """Draws pictures.

        Args:
            jobs: list of `Job`.

        Returns:
            A list of bytes, PNG files.

        Raises:
            Refusal: 503, where they would take too long.
        """
        try:
            images = await asyncio.wait_for(self.batcher.submit(jobs), self.timeout)
        except Busy:
            raise busy("too many pictures wait already") from None
        except asyncio.TimeoutError:
            raise busy("the pictures took too long") from None
        return [_png(image) for image in images]

    async def read(self, request, schema):
        """Reads and checks the body of a request.

        Args:
            request: `fastapi.Request`.
            schema: a pydantic model.

        Returns:
            An instance of it.

        Raises:
            Refusal: 400, 408 or 413.
        """
        try:
            body = await asyncio.wait_for(self._body(request), self.timeout)
        except asyncio.TimeoutError:
            raise Refusal(408, "the request did not arrive in time") from None
        with refusing():
            return schema.model_validate_json(body)

    async def _body(self, request):
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self.max_body:
                raise Refusal(413, f"more than {self.max_body} bytes")
        return bytes(body)


def check_key(key, authorization):
    """Refuses whoever does not carry the key.

    Args:
        key: string.
        authorization: string, `Bearer KEY` or the key alone.

    Raises:
        Refusal: 401.
    """
    given = authorization.removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), key.encode()):
        raise Refusal(401, "a key is needed: Authorization: Bearer KEY")


def busy(reason):
    """A refusal of what may be asked again."""
    return Refusal(503, f"{reason}: try again", {"Retry-After": "1"})


def log_failure(error):
    """Logs what failed inside. Returns what a client is told of it: not the reason."""
    _log.error("a request failed", exc_info=error)
    return "it failed: see the log of the service"


def _png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


@contextlib.contextmanager
def refusing():
    """Turns pydantic's errors into refusals."""
    try:
        yield
    except ValidationError as error:
        raise Refusal(400, first_error(error.errors())) from None


def first_error(errors):
    """The first of pydantic's errors in words."""
    error = errors[0]
    place = ".".join(str(part) for part in error["loc"] if part != "query")
    message = json.dumps(error["msg"])[1:-1]
    return f"{place}: {message}" if place else message

"""The signatures that TensorFlow Serving calls, the same as in a SavedModel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from galip_keras.serving import schemas
from galip_keras.serving.jobs import EmbedJob, Job, TokensJob


class Tensor(NamedTuple):
    """An input or output.

    Attributes:
        dtype: string. TensorFlow's name of it.
        shape: tuple of ints. Without the batch axis.
        type: annotation for pydantic, of what an input has for one row.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    type: Any = None


class Signature(NamedTuple):
    """What a request gives and gets.

    Attributes:
        name: string.
        inputs: mapping of strings to `Tensor`.
        output: string. The name of the only output.
        result: `Tensor`, the output. Strings are PNG files.
        job: callable. Makes a job from the inputs of a row.
        schema: subclass of `schemas.Predict`, of a request.
    """

    name: str
    inputs: Mapping[str, Tensor]
    output: str
    result: Tensor
    job: Callable[..., Any]
    schema: type[schemas.Predict]

    def jobs(self, asked: schemas.Predict) -> list[Any]:
        """A job for each row of a request."""
        return [self.job(**row) for row in asked.rows()]


def signatures(model: Any) -> dict[str, Signature]:
    """Find the signatures that a model can serve.

    Args:
        model: object with `generate(prompts, seed, truncation)`. Where it also has
            `sizes`, a dict as that of `galip_keras.GALIPTextToImage`, it has
            `embed(prompts)` and `generate_from_token_ids(token_ids, noise)` as well.
            Without `takes_prompts`, if there is such an attribute, only the latter
            counts.

    Returns:
        A dict of names to `Signature`.
    """
    sizes = getattr(model, "sizes", None)
    prompt = Tensor("string", (), schemas.TextOrBytes)
    found = []
    if getattr(model, "takes_prompts", True):
        inputs = {"prompt": prompt, "seed": Tensor("int64", (), schemas.Seed)}
        output = "image_bytes", Tensor("string")
        found.append(_signature("serving_default", inputs, *output, Job))
        if sizes:
            output = "embedding", Tensor("float", (sizes["embedding_dim"],))
            found.append(_signature("embed", {"prompt": prompt}, *output, EmbedJob))
    if sizes:
        output = "images", Tensor("uint8", (*[sizes["image_size"]] * 2, 3))
        found.append(_signature("generate", _tokens(sizes), *output, TokensJob))
    return {signature.name: signature for signature in found}


def _tokens(sizes: Mapping[str, int]) -> dict[str, Tensor]:
    token = Annotated[int, Field(strict=True, ge=0, lt=sizes["vocabulary_size"])]
    inputs = {
        "token_ids": ("int32", sizes["sequence_length"], token),
        "noise": ("float", sizes["latent_dim"], schemas.Float),
    }
    return {
        name: Tensor(
            dtype,
            (size,),
            Annotated[list[kind], Field(min_length=size, max_length=size)],  # type: ignore[valid-type]
        )
        for name, (dtype, size, kind) in inputs.items()
    }


def _signature(
    name: str,
    inputs: Mapping[str, Tensor],
    output: str,
    result: Tensor,
    job: Callable[..., Any],
) -> Signature:
    types = {key: tensor.type for key, tensor in inputs.items()}
    return Signature(
        name, inputs, output, result, job, schemas.predict_schema(name, types)
    )

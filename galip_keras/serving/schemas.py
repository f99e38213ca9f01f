"""The requests and errors of each interface, as pydantic models."""

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# CLIP reads 77 tokens, so a longer prompt is a mistake or an attack.
MOST_CHARACTERS = 2000
MOST_IMAGES = 16

Prompt = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Truncation = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]


def _text(value: Any) -> Any:
    """Decode bytes as TensorFlow Serving writes them: `{"b64": ...}`."""
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True).decode()
        except (ValueError, TypeError) as error:
            raise ValueError("b64 must be UTF-8 text in base64") from error
    return value


class Instance(BaseModel):
    """The prompt and seed of one image."""

    model_config = ConfigDict(extra="forbid")
    prompt: Prompt
    seed: Seed

    _decode = field_validator("prompt", mode="before")(_text)


class Columns(BaseModel):
    """The prompts and seeds of several images, as two lists."""

    model_config = ConfigDict(extra="forbid")
    prompt: list[Prompt] = Field(min_length=1, max_length=MOST_IMAGES)
    seed: list[Seed] = Field(min_length=1, max_length=MOST_IMAGES)

    @field_validator("prompt", mode="before")
    @classmethod
    def _decode(cls, value: Any) -> Any:
        return [_text(x) for x in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check_lengths(self) -> "Columns":
        if len(self.prompt) != len(self.seed):
            raise ValueError("prompt and seed must have the same length")
        return self

    def rows(self) -> list[tuple[str, int]]:
        """Pairs of prompt and seed, one per image."""
        return list(zip(self.prompt, self.seed, strict=True))


class Predict(BaseModel):
    """A predict request of TensorFlow Serving: `instances` or `inputs`."""

    model_config = ConfigDict(extra="forbid")
    signature_name: Literal["serving_default", ""] = "serving_default"
    instances: list[Instance] | None = Field(None, min_length=1, max_length=MOST_IMAGES)
    inputs: Columns | None = None


class Generation(BaseModel):
    """A request of OpenAI's images API. Fields with no meaning here are ignored."""

    model_config = ConfigDict(extra="ignore")
    prompt: Prompt
    n: int = Field(1, strict=True, ge=1, le=MOST_IMAGES)
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(100, strict=True, ge=0, le=100)
    size: str = Field("auto", max_length=20)
    model: str | None = Field(None, max_length=200)
    stream: Literal[False] = False
    seed: Seed | None = None
    truncation: Truncation = 1.0

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """OpenAI's clients send null for whatever was not set."""
        if not isinstance(value, dict):
            return value
        return {name: field for name, field in value.items() if field is not None}


class Error(BaseModel):
    """An error in the format of TensorFlow Serving."""

    error: str


class Failure(BaseModel):
    """Details of an error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """An error in the format of OpenAI's API."""

    error: Failure

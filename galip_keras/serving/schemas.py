"""The requests and errors of each interface, as pydantic models."""

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

# CLIP reads 77 tokens, so a longer prompt is a mistake or an attack.
MOST_CHARACTERS = 2000
MOST_IMAGES = 16
# What a request without `signature_name` calls.
DEFAULT_SIGNATURE = "serving_default"

Prompt = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Truncation = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_HIGHEST = float(np.finfo("float32").max)
Float = Annotated[
    float, Field(strict=True, ge=-_HIGHEST, le=_HIGHEST, allow_inf_nan=False)
]


def _text(value: Any) -> Any:
    """Decode bytes as TensorFlow Serving writes them: `{"b64": ...}`."""
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            return base64.b64decode(value["b64"], validate=True).decode()
        except (ValueError, TypeError) as error:
            raise ValueError("b64 must be UTF-8 text in base64") from error
    return value


TextOrBytes = Annotated[Prompt, BeforeValidator(_text)]


class Named(BaseModel):
    """The signature that a predict request of TensorFlow Serving calls."""

    signature_name: str = ""


class Columns(BaseModel):
    """The inputs of several rows: a list for each input."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _check_lengths(self) -> "Columns":
        columns = dict(self)
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError(f"{' and '.join(columns)} must have the same length")
        return self


class Predict(BaseModel):
    """A predict request of TensorFlow Serving: `instances` or `inputs`."""

    model_config = ConfigDict(extra="forbid")
    signature_name: str
    instances: list[Any] | None
    inputs: Any

    @model_validator(mode="after")
    def _check_forms(self) -> "Predict":
        if (self.instances is None) == (self.inputs is None):
            raise ValueError("give either `instances` or `inputs`")
        return self

    def rows(self) -> list[dict[str, Any]]:
        """The inputs of each row, by name."""
        if self.instances is not None:
            return [dict(row) for row in self.instances]
        columns = dict(self.inputs)
        return [dict(zip(columns, row)) for row in zip(*columns.values())]


def predict_schema(name: str, inputs: Mapping[str, Any]) -> type[Predict]:
    """Make the schema of a signature's requests.

    Args:
        name: string. The name of the signature.
        inputs: mapping of strings to annotations. What each input has for one row.

    Returns:
        A subclass of `Predict`.
    """
    title = name.title().replace("_", "")
    several = Field(min_length=1, max_length=MOST_IMAGES)
    lists: dict[str, Any] = {
        key: Annotated[list[type_], several]  # type: ignore[valid-type]
        for key, type_ in inputs.items()
    }
    config = ConfigDict(extra="forbid")
    row: Any = create_model(f"{title}Instance", __config__=config, **inputs)
    columns: Any = create_model(f"{title}Inputs", __base__=Columns, **lists)
    if len(inputs) == 1:
        row, columns = _or_bare(row, inputs), _or_bare(columns, lists)
    names: Any = Literal[name]
    default: Any = ...
    if name == DEFAULT_SIGNATURE:
        names, default = Literal[name, ""], name
    return create_model(
        title,
        __base__=Predict,
        signature_name=(names, default),
        instances=(Annotated[list[row], several] | None, None),
        inputs=(columns | None, None),
    )


def _or_bare(schema: Any, inputs: Mapping[str, Any]) -> Any:
    """Take the value of the only input without its name, too."""
    ((name, type_),) = inputs.items()

    def wrap(value: Any) -> Any:
        is_bare = not isinstance(value, dict) or value.keys() == {"b64"}
        return {name: value} if is_bare else value

    return Annotated[
        schema, BeforeValidator(wrap, json_schema_input_type=schema | type_)
    ]


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

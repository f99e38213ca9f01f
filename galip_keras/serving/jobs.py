"""What the service makes: a job for each image or embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Job(NamedTuple):
    """An image to draw from a prompt.

    Attributes:
        prompt: string.
        seed: int.
        truncation: float. Factor of the noise.
        other: string. A prompt to interpolate to, or None.
        weight: float in [0, 1]. Weight of `other`.
    """

    prompt: str
    seed: int
    truncation: float = 1.0
    other: str | None = None
    weight: float = 0.0


class EmbedJob(NamedTuple):
    """A prompt to embed.

    Attributes:
        prompt: string.
    """

    prompt: str


class TokensJob(NamedTuple):
    """An image to draw from token ids and noise.

    Attributes:
        token_ids: sequence of ints, as many as the model's sequence length.
        noise: sequence of floats, as many as the model's latent dimensions.
    """

    token_ids: Sequence[int]
    noise: Sequence[float]

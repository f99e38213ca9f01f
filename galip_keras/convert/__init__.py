"""Weights by GALIP's authors, OpenAI and open_clip, converted to presets."""

from galip_keras import _moved

__getattr__ = _moved.names(__name__)

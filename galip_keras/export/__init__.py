"""Exports for other runtimes, and the runtimes."""

from galip_keras import _moved

__getattr__ = _moved.names(__name__)

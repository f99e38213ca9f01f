"""Exports for production runtimes, and the code that runs them."""

from galip_keras import _moved

__getattr__ = _moved.names(__name__)

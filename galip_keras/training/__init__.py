"""Training runs."""

from galip_keras import _moved

__getattr__ = _moved.names(__name__)

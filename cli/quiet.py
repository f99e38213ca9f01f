"""Keras and TensorFlow, imported without their notes on standard error."""

import contextlib
import gc
import logging
import os
import sys
import tempfile
import warnings


@contextlib.contextmanager
def quiet_imports():
    """Hold back what native libraries write on standard error while they load.

    FutureWarnings and TensorFlow's own warnings stay off afterwards.

    No setting stops TensorFlow's notes about missing CUDA drivers. Who wants to see
    them sets TF_CPP_MIN_LOG_LEVEL to 0, as `--verbose` does.
    """
    with _no_collection(), _quiet():
        yield


@contextlib.contextmanager
def _no_collection():
    # What is imported stays. Looking through it for garbage, over and over while it
    # loads and while models are traced, takes a fifth of the time.
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _quiet():
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0":
        yield
        return
    # These tell users nothing: TensorFlow's warnings, such as of retracing after a few
    # batch sizes, and FutureWarnings, which are for the developers of libraries.
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)

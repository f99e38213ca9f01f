"""Several devices and several machines.

One machine: `tf.distribute.MirroredStrategy` on TensorFlow, `keras.distribution` on
JAX. Several machines: JAX. PyTorch takes one device.
"""

import contextlib

import keras
from keras import ops

_BACKEND = keras.config.backend()


def join(coordinator, num_processes, process_id):
    """Makes this process one of several that train together. Waits for the others.

    Args:
        coordinator: string. `HOST:PORT` of process 0.
        num_processes: int.
        process_id: int, from 0.

    Raises:
        ValueError: on a backend that cannot.
        OSError: where the others do not come.
    """
    if _BACKEND != "jax":
        raise ValueError(
            f"several processes train together on JAX only, not on {_BACKEND}: set "
            "KERAS_BACKEND=jax"
        )
    try:
        keras.distribution.initialize(coordinator, num_processes, process_id)
    except RuntimeError as error:
        raise OSError(
            f"process {process_id} of {num_processes} could not join the others at "
            f"{coordinator} ({error})"
        ) from error


def process():
    """`(index, count)` of the processes that train together."""
    if _BACKEND != "jax":
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def is_main():
    """Whether this is the process that writes."""
    return process()[0] == 0


def highest(number):
    """The highest number that any of the processes gives. They wait for each other."""
    if process()[1] == 1:
        return number
    import numpy as np
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.asarray(number))))


def barrier():
    """Waits until all processes are here."""
    highest(0)


@contextlib.contextmanager
def main_first():
    """What is done inside, the process that writes does before the others."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


@contextlib.contextmanager
def alone():
    """What is done inside waits for no other process.

    Keras makes variables even while it saves some, and shares them among all devices.
    """
    if process()[1] == 1:
        yield
        return
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def is_cpu():
    """Whether there is nothing but a CPU."""
    if _BACKEND == "torch":
        # Where Keras puts what it makes.
        return ops.zeros(()).device.type == "cpu"
    return "cpu" in keras.distribution.list_devices()[0].lower()


@contextlib.contextmanager
def use(num_devices):
    """Models that are built and trained inside share each batch among devices.

    Args:
        num_devices: int. Devices of this machine; with several processes, of each.

    Yields:
        Whether there are several.

    Raises:
        ValueError: where there are not as many, or on PyTorch.
    """
    if num_devices == 1 and process()[1] == 1:
        yield False
    elif _BACKEND == "tensorflow":
        with _mirrored(num_devices):
            yield True
    elif _BACKEND == "jax":
        with _data_parallel(num_devices):
            yield True
    else:
        raise ValueError(f"{_BACKEND} trains on one device: leave `num_devices` out")


def roll(x):
    """The rows of a batch one up, the first one to the end, over all its devices.

    Args:
        x: tensor `(batch_size, ...)`, in a training step this device's share.
    """
    if _BACKEND == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            rows = tf.shape(x)[0]
            first = context.replica_id_in_sync_group * rows
            rolled = tf.roll(context.all_gather(x, axis=0), -1, axis=0)
            return tf.ensure_shape(rolled[first : first + rows], x.shape)
    # On JAX an array of many devices is one array.
    return ops.roll(x, -1, axis=0)


def repeatable():
    """From here on the same program gives the same numbers, on a CPU bit for bit."""
    if _BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif _BACKEND == "torch":
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)


def hide_gpus_from_tensorflow():
    """Keep TensorFlow, which reads data, from taking the GPUs of another backend."""
    if _BACKEND != "tensorflow":
        import tensorflow as tf

        # Too late if the caller has used TensorFlow before: then the choice is theirs.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")


def _set_jit_compile(model, value):
    # Keras compiles nothing where TensorFlow is to be deterministic, since XLA lacks
    # some such ops on a GPU. On a CPU the same program gives the same numbers anyway.
    if value and is_cpu():
        model._jit_compile = value
    else:
        keras.Model.jit_compile.fset(model, value)


# For models whose ops are known.
jit_compile = keras.Model.jit_compile.setter(_set_jit_compile)


def _mirrored(num_devices):
    import tensorflow as tf

    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    _check_count(num_devices, len(devices), kind)
    return tf.distribute.MirroredStrategy(devices[:num_devices]).scope()


@contextlib.contextmanager
def _data_parallel(num_devices):
    import jax

    mine = [d for d in jax.devices() if d.process_index == jax.process_index()]
    _check_count(num_devices, len(mine), mine[0].platform.upper())
    names = keras.distribution.list_devices()
    if jax.process_count() == 1:
        names = names[:num_devices]
    elif num_devices < len(mine):
        raise ValueError(
            f"every process takes all of its {len(mine)} devices: hide the others, "
            "for instance with CUDA_VISIBLE_DEVICES"
        )
    previous = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(previous)


def _check_count(wanted, count, kind):
    if wanted > count:
        raise ValueError(f"{wanted} devices were asked for, there are {count} ({kind})")

"""A contract of everything that Keras saves: a config makes the same object again."""

import keras


def round_trip(original):
    """Serialize a layer or model to plain values and back. Return the copy."""
    config = keras.saving.serialize_keras_object(original)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is type(original)
    assert keras.saving.serialize_keras_object(copy) == config
    assert [v.shape for v in copy.variables] == [v.shape for v in original.variables]
    return copy

"""What tests read of prepared records."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from galip_keras.datasets import prepare


def examples(builder, split="train"):
    """A dict of ids to examples."""
    found = tfds.as_numpy(builder.as_dataset(split=split))
    return {example["id"].decode(): example for example in found}


def captions(builder, split="train"):
    """A dict of ids to captions."""
    return {
        name: [text.decode() for text in example["captions"]]
        for name, example in examples(builder, split).items()
    }


def skipped(builder):
    """A dict of reasons to the names of what was left out."""
    return dict(builder.info.metadata["skipped"])


def is_red(builder):
    """Whether the middle of every image is red."""
    return all(
        np.allclose(example["image"][150, 150], (255, 0, 0), atol=3)
        for example in examples(builder).values()
    )


def refusal(dataset, data_dir, error=ValueError, **options):
    """The one-line error of preparing a dataset, which must leave nothing behind."""
    before = set(data_dir.glob("*/*/1.0.0"))
    with pytest.raises(error) as info:
        prepare(dataset, data_dir, **options)
    assert "\n" not in str(info.value)
    assert set(data_dir.glob("*/*/1.0.0")) == before
    return str(info.value)

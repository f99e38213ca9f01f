"""What tests read of prepared records."""

import tensorflow_datasets as tfds


def captions(builder, split="train"):
    """A dict of id to captions."""
    return {
        example["id"].decode(): [text.decode() for text in example["captions"]]
        for example in tfds.as_numpy(builder.as_dataset(split=split))
    }


def skipped(builder):
    """A dict of reason to the names of what was left out for it."""
    return dict(builder.info.metadata["skipped"])

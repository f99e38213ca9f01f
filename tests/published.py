"""Training steps on CLIPs of the published sizes.

A module of its own, since a spawned process imports what it runs by name.
"""

import numpy as np
import tiny
from keras.ops import convert_to_numpy

from galip_keras import GALIP, FrozenCLIP, MateG
from galip_keras.models.random_clip import random_clip

# The sizes of OpenAI's CLIP besides ViT-B/32.
CLIPS = {
    "ViT-B/16": {"patch_size": 16},
    "ViT-L/14": {
        "patch_size": 14,
        "hidden_dim": 1024,
        "num_layers": 24,
        "num_heads": 16,
        "embedding_dim": 768,
        "text_hidden_dim": 768,
        "text_num_heads": 12,
    },
}


def train_one_step(name):
    """Train one step on a CLIP of a published size."""
    clip = FrozenCLIP(random_clip(**CLIPS[name])[0])
    gan = GALIP(MateG(clip))
    gan.compile(run_eagerly=True)
    before = convert_to_numpy(gan.generator.to_rgb.kernel).copy()
    data = tiny.batch(2, image_size=256, noise=False)
    history = gan.fit(data, batch_size=2, verbose=0).history
    after = convert_to_numpy(gan.generator.to_rgb.kernel)
    return gan.generator.image_size, history, np.array_equal(before, after)

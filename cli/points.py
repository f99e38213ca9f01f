"""Places in the latent space, as commands name them."""

import click


def load(model):
    """The MODEL of a command, a `GALIPTextToImage`."""
    import keras

    from galip_keras.presets.loading import load_model

    # An architecture begins with random weights: the same ones every time.
    keras.utils.set_random_seed(0)
    return load_model(model)


def load_any(model):
    """The same, or what `galip export` wrote, for which no Keras is imported."""
    from galip_keras.export import runtimes as exported

    return exported.load(model) if exported.is_exported(model) else load(model)


def is_file(sentence):
    """Whether a PROMPT is what `galip invert` wrote."""
    return sentence.endswith(".npz")


def read(network, sentences, seeds, truncation):
    """The `sampling.latent.Point` of each of as many sentences and seeds."""
    from galip_keras.sampling import latent as editing

    return [
        editing.load(sentence, network)
        if is_file(sentence)
        else editing.point(network, sentence, seed, truncation)
        for sentence, seed in zip(sentences, seeds, strict=True)
    ]


def pairs(sentences, seeds):
    """One sentence with each seed, one seed with each sentence, or as many of each."""
    count = max(len(sentences), len(seeds))
    if len(sentences) not in (1, count) or len(seeds) not in (1, count):
        raise click.UsageError(
            f"{len(sentences)} prompts and {len(seeds)} seeds do not go together: "
            "give one of either, or as many of both."
        )
    if count < 2:
        raise click.UsageError("a way has two ends: give two prompts, or two --seeds.")
    return sentences * (count // len(sentences)), seeds * (count // len(seeds))


def draw(network, points):
    """The pictures of points, one at a time: in a batch, rounding could differ."""
    import numpy as np

    return np.concatenate(
        [network.decode(p.noise[None], p.text_embedding[None]) for p in points]
    )

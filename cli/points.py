"""Points of the latent space, as commands name them."""

import click


def is_file(prompt):
    """Whether a PROMPT is a file that `galip invert` wrote."""
    return prompt.endswith(".npz")


def read(network, prompts, seeds, truncation):
    """The `latent.Point` of each prompt and its seed."""
    from galip_keras.sampling import latent

    texts = [prompt for prompt in prompts if not is_file(prompt)]
    network.preprocessor.warn_of_lost_words(texts)
    return [
        latent.load(prompt, network)
        if is_file(prompt)
        else latent.point(network, prompt, seed, truncation)
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]


def pairs(prompts, seeds):
    """One prompt with each seed, one seed with each prompt, or as many of each."""
    count = max(len(prompts), len(seeds))
    if len(prompts) not in (1, count) or len(seeds) not in (1, count):
        raise click.UsageError(
            f"{len(prompts)} prompts and {len(seeds)} seeds do not go together: "
            "give one of either, or as many of both."
        )
    if count < 2:
        raise click.UsageError("a path has two ends: give two prompts, or two --seeds.")
    return prompts * (count // len(prompts)), seeds * (count // len(seeds))

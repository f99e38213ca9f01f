"""The optimizers of the two networks."""

from collections.abc import Sequence
from typing import Any

import keras

from galip_keras.backend import Tensor
from galip_keras.models import losses


class AdversarialOptimizer(keras.optimizers.MultiOptimizer):
    """One optimizer for the generator and one for the discriminator.

    Keras' trainers and savers know only a single `model.optimizer`, which is this one.
    The training step applies the two optimizers in turn by itself.

    Args:
        generator: a `keras.optimizers.Optimizer`.
        discriminator: a `keras.optimizers.Optimizer`.
        generator_variables: list of `keras.Variable`. All other variables are the
            discriminator's.
    """

    def __init__(
        self,
        generator: keras.optimizers.Optimizer,
        discriminator: keras.optimizers.Optimizer,
        generator_variables: Sequence[keras.Variable],
    ) -> None:
        super().__init__({"generator": generator, "discriminator": discriminator})
        self.generator = generator
        self.discriminator = discriminator
        self._owned = {id(v) for v in generator_variables}

    # `MultiOptimizer` refuses optimizers that scale the loss, because it never calls
    # `scale_loss`. The training step does.
    def build(self, var_list: Sequence[keras.Variable]) -> None:
        if not self.built:
            for optimizer, variables in self._by_optimizer(var_list):
                optimizer.build(variables)
            keras.optimizers.Optimizer.build(self, var_list)

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        for optimizer, variables in self._by_optimizer(var_list):
            optimizer.finalize_variable_values(variables)

    def _by_optimizer(self, variables):
        owned = [v for v in variables if id(v) in self._owned]
        others = [v for v in variables if id(v) not in self._owned]
        return (self.generator, owned), (self.discriminator, others)

    # Savers visit the two optimizers as well, which save these variables already.
    def save_own_variables(self, store: Any) -> None:
        pass

    def load_own_variables(self, store: Any) -> None:
        pass


def adam(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    **kwargs: Any,
) -> keras.optimizers.Adam:
    """Adam with the paper's betas.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        **kwargs: other keyword arguments of `keras.optimizers.Adam`.

    Returns:
        A `keras.optimizers.Adam`.
    """
    return keras.optimizers.Adam(
        learning_rate, beta_1=0.0, beta_2=0.9, epsilon=1e-8, **kwargs
    )


def unscaled_norm(
    gradients: Sequence[Tensor], optimizer: keras.optimizers.Optimizer
) -> Tensor:
    """The norm of gradients of a loss that the optimizer has scaled."""
    return losses.global_norm(gradients) / optimizer.scale_loss(1.0)


def scale_losses(
    optimizer: keras.optimizers.Optimizer,
) -> keras.optimizers.LossScaleOptimizer:
    """Wrap an optimizer in a `LossScaleOptimizer`, unless it is one."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)

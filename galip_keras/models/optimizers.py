"""The optimizers of the two networks."""

import keras

from galip_keras.models import losses


class AdversarialOptimizer(keras.optimizers.MultiOptimizer):
    """One optimizer for the generator, one for the discriminator.

    Keras' trainers and savers know a single `model.optimizer`: this is it. The networks
    take turns, so the training step applies the two themselves.

    Args:
        generator: `keras.optimizers.Optimizer`.
        discriminator: `keras.optimizers.Optimizer`.
        generator_variables: list of `keras.Variable`. All others are the
            discriminator's.
    """

    def __init__(self, generator, discriminator, generator_variables):
        super().__init__({"generator": generator, "discriminator": discriminator})
        self.generator = generator
        self.discriminator = discriminator
        self._owned = {id(v) for v in generator_variables}

    # `MultiOptimizer` refuses optimizers that scale the loss, whose scale it would not
    # ask for. The training step does.
    def build(self, var_list):
        if not self.built:
            for optimizer, variables in self._by_optimizer(var_list):
                optimizer.build(variables)
            keras.optimizers.Optimizer.build(self, var_list)

    def finalize_variable_values(self, var_list):
        for optimizer, variables in self._by_optimizer(var_list):
            optimizer.finalize_variable_values(variables)

    def _by_optimizer(self, variables):
        owned = [v for v in variables if id(v) in self._owned]
        others = [v for v in variables if id(v) not in self._owned]
        return (self.generator, owned), (self.discriminator, others)

    # Savers visit the two optimizers by themselves; their variables once is enough.
    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


def adam(learning_rate, **kwargs):
    """The paper's optimizer.

    Args:
        learning_rate: float or `keras.optimizers.schedules.LearningRateSchedule`.
        **kwargs: other keyword arguments of `keras.optimizers.Adam`.
    """
    return keras.optimizers.Adam(
        learning_rate, beta_1=0.0, beta_2=0.9, epsilon=1e-8, **kwargs
    )


def unscaled_norm(gradients, optimizer):
    return losses.global_norm(gradients) / optimizer.scale_loss(1.0)


def scale_losses(optimizer):
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)

"""The networks, their losses and the training step, as Keras classes."""

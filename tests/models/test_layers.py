"""Building blocks against their direct forms and against numbers by hand."""

import keras
import numpy as np
import pytest
import serialization
import tiny
from keras import ops

from galip_keras import backend
from galip_keras.backend import choices
from galip_keras.models import layers

pytestmark = pytest.mark.every_backend

CHANNELS, CONDITION_DIM = 6, 5


def randomize(layer, seed=0):
    """Draw weights without zeros and ones, which would hide errors."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        scale = 1 / np.sqrt(max(np.prod(weight.shape[:-1]), 1))
        weight.assign(scale * rng.standard_normal(weight.shape))


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def direct_call(block, x, condition):
    """The generator block as in the paper, which resizes first."""
    x = layers.nearest_resize(x, block.size)
    residual = block.fusion_1(x, condition)
    residual = ops.conv(residual, block.conv_1.kernel, padding="same")
    residual = block.fusion_2(residual + block.conv_1.bias, condition)
    shortcut = x if block.shortcut is None else block.shortcut(x)
    return shortcut + block.conv_2(residual)


def generator_block(height, size, filters):
    block = layers.GeneratorBlock(filters, size)
    block.build((None, height, height, CHANNELS), (None, CONDITION_DIM))
    randomize(block)
    return block


def force(form, monkeypatch):
    """Choose a form, as if it was the fastest."""

    def resize_form(old_size, size):
        is_possible = size == 2 * old_size or form != choices.TRANSPOSED
        return form if is_possible else choices.DIRECT

    monkeypatch.setattr(backend, "resize_form", resize_form)


@pytest.mark.parametrize("form", [choices.PRODUCTS, choices.TRANSPOSED])
@pytest.mark.parametrize("filters", [CHANNELS, 4])
@pytest.mark.parametrize(("height", "size"), [(7, 8), (8, 16), (16, 28), (5, 5)])
def test_generator_block_equals_the_direct_form(
    height, size, filters, form, monkeypatch
):
    force(form, monkeypatch)
    block = generator_block(height, size, filters)
    x = ops.convert_to_tensor(normal(2, height, height, CHANNELS))
    condition = ops.convert_to_tensor(normal(2, CONDITION_DIM))
    weight = ops.convert_to_tensor(normal(2, size, size, filters, seed=2))

    def outputs_and_gradients(call):
        def by_weights():
            return ops.sum(call(x, condition) * weight), call(x, condition)

        def by_inputs(x, condition):
            return ops.sum(call(x, condition) * weight), 0

        def compute():
            (_, y), gradients = backend.value_and_gradient(by_weights, block.weights)
            _, more = backend.value_and_input_gradient(by_inputs, x, condition)
            return (y, *gradients, *more)

        outputs = tiny.compiled(compute)
        return [ops.convert_to_numpy(ops.stop_gradient(a)) for a in outputs]

    fused = outputs_and_gradients(block)
    direct = outputs_and_gradients(lambda x, c: direct_call(block, x, c))
    for ours, theirs in zip(fused, direct):
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert error < 1e-5


@pytest.mark.parametrize("form", [choices.PRODUCTS, choices.TRANSPOSED])
@pytest.mark.parametrize(
    ("height", "size"), [(4, 8), (4, 7), (5, 8), (3, 9), (4, 9), (7, 8), (6, 6), (1, 2)]
)
def test_resize_conv_equals_resize_then_conv(height, size, form, monkeypatch):
    force(form, monkeypatch)
    layer = layers.ResizeConv2D(4, size)
    layer.build((None, height, height, CHANNELS))
    randomize(layer)
    x = normal(2, height, height, CHANNELS)
    large = layers.nearest_resize(ops.convert_to_tensor(x), size)
    direct = ops.conv(large, layer.kernel, padding="same") + layer.bias
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)), ops.convert_to_numpy(direct), atol=1e-5
    )


@pytest.mark.parametrize(("height", "size"), [(8, 16), (16, 28)])
def test_resize_conv_multiplies_a_third_at_most(height, size, monkeypatch):
    layer = layers.ResizeConv2D(4, size)
    layer.build((None, height, height, CHANNELS))
    multiplications, matmul = [], ops.matmul

    def count(x, kernel):
        multiplications.append(np.prod(x.shape) * kernel.shape[-1])
        return matmul(x, kernel)

    monkeypatch.setattr(ops, "matmul", count)
    monkeypatch.setattr(backend, "conv2d", None)
    force(choices.PRODUCTS, monkeypatch)
    layer(normal(1, height, height, CHANNELS))
    direct = size**2 * 9 * CHANNELS * 4
    assert 0 < sum(multiplications) < 0.36 * direct


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_patch_conv_is_a_convolution(padding):
    layer = layers.PatchConv2D(4, 3, padding=padding, dtype="mixed_float16")
    layer.build((None, 5, 5, CHANNELS))
    x = normal(2, 5, 5, CHANNELS)
    direct = ops.convert_to_numpy(ops.conv(x, layer.kernel, padding=padding))
    y = ops.convert_to_numpy(layer(x))
    assert y.dtype == "float16"
    np.testing.assert_allclose(y, direct, atol=5e-3)


@pytest.mark.parametrize(("old", "new"), [(256, 224), (7, 8), (128, 224), (14, 8)])
def test_nearest_resize_takes_the_floor(old, new):
    image = normal(1, old, old, 2)
    resized = ops.convert_to_numpy(layers.nearest_resize(image, new))
    for i, j in [(0, 0), (1, new - 1), (new // 2, 3), (new - 1, new - 2)]:
        expected = image[0, i * old // new, j * old // new]
        np.testing.assert_array_equal(resized[0, i, j], expected)


def test_deep_fusion_by_hand():
    fusion = layers.DeepFusion()
    fusion.build((None, 1, 1, 2), (None, 1))
    # One condition number c, hidden relu(c), so the four affine vectors are c * rows.
    fusion.hidden_kernel.assign(np.ones((1, 8)))
    rows = np.array([[2.0, -2.0], [1.0, 0.0], [1.0, 3.0], [0.0, -10.0]])
    fusion.output_kernel.assign([np.diag(row) for row in rows])
    fusion.output_bias.assign(np.zeros((4, 2)))
    x = np.array([[[[3.0, 5.0]]]], "float32")
    y = ops.convert_to_numpy(fusion(x, np.ones((1, 1), "float32")))
    # Channel 0: (3*2+1) -> 7 -> 7*1+0. Channel 1: 5*-2 -> -10 -> -2 -> -2*3-10 -> -3.2.
    np.testing.assert_allclose(y[0, 0, 0], [7.0, -3.2], rtol=1e-6)


def test_deep_fusion_starts_as_two_leaky_relus():
    fusion = layers.DeepFusion()
    x = normal(2, 3, 3, CHANNELS)
    y = ops.convert_to_numpy(fusion(x, normal(2, CONDITION_DIM)))
    np.testing.assert_allclose(y, np.where(x > 0, x, 0.04 * x), rtol=1e-6)


def test_discriminator_block_starts_as_its_shortcut():
    block = layers.DiscriminatorBlock(CHANNELS, use_features=True)
    x, features = normal(2, 3, 3, CHANNELS), normal(2, 3, 3, CHANNELS, seed=2)
    np.testing.assert_array_equal(ops.convert_to_numpy(block(x, features)), x)
    block.beta.assign(0.5)
    y = ops.convert_to_numpy(block(x, features))
    np.testing.assert_allclose(y, x + 0.5 * features, rtol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.ResizeConv2D(4, 16),
        layers.DeepFusion(),
        layers.FusionBlock(3),
        layers.GeneratorBlock(4, 16),
        layers.DiscriminatorBlock(4, False),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_config_round_trip(layer):
    with keras.saving.custom_object_scope({type(layer).__name__: type(layer)}):
        serialization.round_trip(layer)


def test_initial_weights_are_uniform_within_the_fan_in():
    conv = layers.conv2d(64, 3, "conv")
    conv.build((None, 8, 8, 32))
    kernel = ops.convert_to_numpy(conv.kernel)
    bound = (9 * 32) ** -0.5
    assert np.abs(kernel).max() <= bound
    assert np.std(kernel) == pytest.approx(bound / 3**0.5, rel=0.02)


def test_backend_pullback_gives_zeros_where_there_is_no_path():
    used, unused = keras.Variable([2.0, 3.0]), keras.Variable([1.0])
    outputs, pull = backend.pullback(lambda: (used * used, 3.0 * used), [used, unused])
    np.testing.assert_allclose(ops.convert_to_numpy(outputs[1]), [6.0, 9.0])
    first, none = pull((ops.convert_to_tensor([1.0, 10.0]), None))
    np.testing.assert_allclose(ops.convert_to_numpy(first), [4.0, 60.0])
    np.testing.assert_allclose(ops.convert_to_numpy(none), [0.0])


def test_input_gradient_is_differentiable():
    variable = keras.Variable([3.0])

    def penalty():
        _, (gradient,) = backend.value_and_input_gradient(
            lambda x: (ops.sum(variable * x**3), None), ops.convert_to_tensor([2.0])
        )
        return ops.sum(gradient**2), gradient

    (value, _), (gradient,) = backend.value_and_gradient(penalty, [variable])
    # d(v x^3)/dx = 3 v x^2 = 36; its square by v: 2 * 36 * 3 x^2.
    assert float(value) == pytest.approx(36.0**2)
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), [2 * 36 * 12.0])

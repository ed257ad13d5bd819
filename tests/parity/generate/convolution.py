"""Convolution and pooling layers: output, and the gradients of half the sum of its squares by input and weights.

Arrays of a case: `x`, `y`, `dx`, and `<i>.<variable>` with `d<i>` for weight i. `is.<class>.<name>` has no number: its
name says what the layer is called.
"""

from common import Area, f32, keras

import jax
import numpy as np
from keras import layers

area = Area("convolution")


def case(name, layer, shape, x=None):
    x = area.put(f"{name}/x", f32(area.random.normal(size=shape) if x is None else x))
    layer.build(x.shape)
    weights = [f32(area.random.normal(size=w.shape) * 0.5) for w in layer.weights]
    for i, (variable, weight) in enumerate(zip(layer.weights, weights)):
        assert variable.trainable
        area.put(f"{name}/{i}.{variable.name}", weight)

    def loss(x, weights):
        y = layer.stateless_call(weights, [], x)[0]
        return (y * y).sum() / 2, y

    (_, y), (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, weights)
    assert tuple(y.shape) == tuple(layer.compute_output_shape(x.shape)), (name, y.shape)
    area.put(f"{name}/y", y)
    area.put(f"{name}/dx", dx)
    for i, d in enumerate(dw):
        area.put(f"{name}/d{i}", d)
    area.put(f"{name}/is.{type(layer).__name__}.{layer.name}", 0.0)
    keras.utils.clear_session()


class Steps(layers.Conv2D):
    """Strides and dilation together: the layer refuses what its op computes."""

    def __init__(self, *args, strides, dilation_rate, **options):
        super().__init__(*args, **options, name="conv2d")
        self.strides, self.dilation_rate = strides, dilation_rate


Steps.__name__ = "Conv2D"

EVEN, ODD, LINE = (1, 6, 6, 2), (2, 5, 7, 2), (2, 7, 2)

# Conv2D
case("conv2d", layers.Conv2D(3, 3), ODD)
case("conv2d plain", layers.Conv2D(4, (2, 3), use_bias=False, activation="tanh"), (2, 4, 5, 4))
case("conv2d relu", layers.Conv2D(4, 3, padding="same", activation="relu"), (1, 4, 4, 4))
case("conv2d pixels", layers.Conv2D(3, 1), EVEN)
case("conv2d pixels strided", layers.Conv2D(3, 1, strides=2), ODD)
case("conv2d same odd kernel", layers.Conv2D(2, 3, padding="same"), EVEN)
case("conv2d same even kernel", layers.Conv2D(2, (2, 4), padding="same"), ODD)
for size in 5, 6:
    for kernel in 2, 3:
        layer = layers.Conv2D(2, kernel, strides=2, padding="same")
        case(f"conv2d same {size} by {kernel} in steps", layer, (1, size, size, 1))
case("conv2d valid in steps", layers.Conv2D(3, (3, 2), strides=(2, 3)), (1, 6, 9, 2))
case("conv2d wide steps", layers.Conv2D(2, 2, strides=3, padding="same"), ODD)
case("conv2d dilated", layers.Conv2D(2, 2, dilation_rate=(2, 3)), EVEN)
case("conv2d dilated same", layers.Conv2D(2, (3, 2), dilation_rate=2, padding="same"), ODD)
case("conv2d dilated steps", Steps(2, 2, strides=(2, 1), dilation_rate=(2, 2), padding="same"), (1, 5, 6, 1))
case("conv2d groups", layers.Conv2D(6, 3, groups=2, padding="same"), (1, 4, 5, 4))
case("conv2d groups in steps", layers.Conv2D(4, 2, groups=2, strides=2), (1, 5, 4, 6))
case("conv2d channels", layers.Conv2D(6, 2, groups=3), (1, 4, 4, 3))
case("conv2d channels in steps", layers.Conv2D(3, 3, groups=3, strides=2, padding="same"), (1, 5, 4, 3))

# Conv1D
case("conv1d", layers.Conv1D(3, 3), LINE)
case("conv1d same", layers.Conv1D(3, 4, padding="same", strides=2), LINE)
case("conv1d causal", layers.Conv1D(3, 3, padding="causal"), LINE)
case("conv1d causal dilated", layers.Conv1D(3, 2, padding="causal", dilation_rate=3, activation="relu"), LINE)
case("conv1d causal in steps", layers.Conv1D(3, 3, padding="causal", strides=2), LINE)
case("conv1d groups", layers.Conv1D(4, 2, groups=2, use_bias=False), (2, 5, 4))

# Depthwise and separable
case("depthwise2d", layers.DepthwiseConv2D(3), EVEN)
case("depthwise2d same", layers.DepthwiseConv2D((2, 3), padding="same", depth_multiplier=2), ODD)
case("depthwise2d steps", layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu"), (1, 5, 6, 4))
case("depthwise2d dilated", layers.DepthwiseConv2D(2, dilation_rate=2, use_bias=False), EVEN)
case("depthwise1d", layers.DepthwiseConv1D(3, depth_multiplier=2), LINE)
case("depthwise1d same", layers.DepthwiseConv1D(2, strides=2, padding="same"), LINE)
case("separable2d", layers.SeparableConv2D(3, 3), EVEN)
case("separable2d doubled", layers.SeparableConv2D(3, 2, depth_multiplier=2, padding="same", activation="relu"), ODD)
case("separable2d steps", layers.SeparableConv2D(4, 3, strides=2, padding="same", use_bias=False), (1, 5, 4, 4))
case("separable2d dilated", layers.SeparableConv2D(2, 2, dilation_rate=2), EVEN)
case("separable1d", layers.SeparableConv1D(3, 3, padding="same"), LINE)

# Transposed
SMALL = (1, 3, 4, 2)
case("transpose2d", layers.Conv2DTranspose(3, 3), SMALL)
case("transpose2d same", layers.Conv2DTranspose(3, 3, padding="same", activation="relu"), SMALL)
case("transpose2d same even", layers.Conv2DTranspose(2, (2, 4), padding="same"), SMALL)
for padding in "valid", "same":
    for kernel in 1, 2, 3, 4:
        layer = layers.Conv2DTranspose(2, kernel, strides=2, padding=padding)
        case(f"transpose2d {padding} {kernel} in steps", layer, (1, 3, 2, 1))
    for kernel in 2, 3:
        for added in (0, 1), (2, 2):
            layer = layers.Conv2DTranspose(2, kernel, strides=3, padding=padding, output_padding=added)
            case(f"transpose2d {padding} {kernel} and {added[0]}", layer, (1, 2, 3, 1))
case("transpose2d wide steps", layers.Conv2DTranspose(2, 2, strides=(3, 4), use_bias=False), SMALL)
case("transpose2d dilated", layers.Conv2DTranspose(2, (3, 2), dilation_rate=2), SMALL)
case("transpose2d dilated same", layers.Conv2DTranspose(2, 2, dilation_rate=(2, 3), padding="same"), SMALL)
case("transpose1d", layers.Conv1DTranspose(3, 3, strides=2), (2, 4, 2))
case("transpose1d same", layers.Conv1DTranspose(3, 4, strides=2, padding="same"), (2, 4, 2))
case("transpose1d added", layers.Conv1DTranspose(3, 3, strides=2, padding="same", output_padding=1), (2, 4, 2))

# Pooling; numbers from few values have ties.
ties = lambda shape: area.random.integers(-2, 3, size=shape)
negative = lambda shape: -1 - area.random.uniform(size=shape)
case("max2d", layers.MaxPooling2D(), ODD)
case("max2d ties", layers.MaxPooling2D((3, 2)), None, ties((2, 6, 6, 3)))
case("max2d overlapping ties", layers.MaxPooling2D(3, strides=1), None, ties((1, 5, 6, 2)))
case("max2d same ties", layers.MaxPooling2D(3, strides=2, padding="same"), None, ties((1, 6, 5, 4)))
case("max2d same negative", layers.MaxPooling2D((2, 3), strides=(3, 2), padding="same"), None, negative(ODD))
case("max2d zeros", layers.MaxPooling2D(2, padding="same"), None, np.zeros((1, 3, 3, 1)))
case("max1d", layers.MaxPooling1D(), LINE)
case("max1d same", layers.MaxPooling1D(3, strides=2, padding="same"), None, ties((2, 6, 2)))
case("mean2d", layers.AveragePooling2D(2), ODD)
case("mean2d overlapping", layers.AveragePooling2D((3, 2), strides=1), EVEN)
case("mean2d same", layers.AveragePooling2D(3, strides=2, padding="same"), EVEN)
case("mean2d same one axis", layers.AveragePooling2D((2, 1), strides=1, padding="same"), ODD)
case("mean1d", layers.AveragePooling1D(2), LINE)
case("mean1d same", layers.AveragePooling1D(3, strides=2, padding="same"), (2, 6, 2))
case("global max2d", layers.GlobalMaxPooling2D(), None, ties((2, 3, 4, 2)))
case("global max2d kept", layers.GlobalMaxPooling2D(keepdims=True), ODD)
case("global max1d", layers.GlobalMaxPooling1D(), None, ties(LINE))
case("global mean2d", layers.GlobalAveragePooling2D(), ODD)
case("global mean2d kept", layers.GlobalAveragePooling2D(keepdims=True), EVEN)
case("global mean1d", layers.GlobalAveragePooling1D(), LINE)
case("global mean1d kept", layers.GlobalAveragePooling1D(keepdims=True), LINE)

# NaN: the value only, since what its derivative should be is nobody's promise.
x = area.normal("nan max2d/x", (1, 4, 4, 2))
x[0, 1, 0, 0] = x[0, 2, 3, 1] = np.nan
area.put("nan max2d/y", layers.MaxPooling2D(2)(x))

area.write()

"""Layers other than convolutions: inputs, weights, states, outputs, a cotangent, gradients and new states.

Of a case c: c/x0.. the inputs, c/w0.. the trainable and c/s0.. the non-trainable variables in Keras' order, c/y the
output, c/g its cotangent, c/dx0.. and c/dw0.. the gradients of sum(y g), c/n0.. the new non-trainable variables. Seeds
of generators are left out.
"""

from common import Area, f32, keras

import jax
import jax.numpy as jnp
import numpy as np

layers = keras.layers
area = Area("layers", seed=4)


def case(name, layer, inputs, training=False, spread=1.0, call=None, whole=(), **options):
    """`inputs` are shapes or arrays; those numbered in `whole` are not differentiated by."""
    xs = [np.asarray(x) if isinstance(x, np.ndarray) else f32(area.random.normal(size=x) * spread) for x in inputs]
    call = call or (lambda xs: (xs[0] if len(xs) == 1 else list(xs),))

    def apply(f, xs):
        *positional, last = call(xs)
        return f(*positional, **last, **options) if isinstance(last, dict) else f(*positional, last, **options)

    apply(layer, xs)
    taken = ("training" in layer._call_signature.parameters) if hasattr(layer, "_call_signature") else False
    if taken:
        options["training"] = training
    weights = [f32(area.random.normal(size=v.shape) * 0.5 + (1.0 if "gamma" in v.path or "scale" in v.path else 0.0))
               for v in layer.trainable_variables]
    states = [v for v in layer.non_trainable_variables]
    seeds = ["seed_generator" in v.path for v in states]
    values = [v.value if seed else jnp.asarray(f32(area.random.uniform(0.5, 1.5, size=v.shape)))
              for v, seed in zip(states, seeds)]
    differentiated = [i for i in range(len(xs)) if i not in whole]

    def forward(weights, given):
        inputs = [jnp.asarray(x) for x in xs]
        for i, x in zip(differentiated, given):
            inputs[i] = x
        return apply(lambda *a, **o: layer.stateless_call(weights, values, *a, **o), inputs)

    args = ([jnp.asarray(w) for w in weights], [jnp.asarray(xs[i]) for i in differentiated])
    y, new = forward(*args)
    g = f32(area.random.normal(size=y.shape))
    dw, dx = jax.grad(lambda *a: jnp.sum(forward(*a)[0] * g), argnums=(0, 1))(*args)
    put = lambda key, value: area.put(f"{name}/{key}", value)
    for i, x in enumerate(xs):
        put(f"x{i}", x)
    for i, (w, d) in enumerate(zip(weights, dw)):
        put(f"w{i}", w), put(f"dw{i}", d)
    for i, d in zip(differentiated, dx):
        put(f"dx{i}", d)
    kept = [i for i, seed in enumerate(seeds) if not seed]
    for at, i in enumerate(kept):
        put(f"s{at}", values[i]), put(f"n{at}", new[i])
    put("y", y), put("g", g)
    assert y.dtype == jnp.float64, name


L = layers
image, rows, sequence = (2, 2, 3, 3), (4, 5), (2, 4, 3)
for mode, training in [("train", True), ("infer", False)]:
    case(f"batch_norm/{mode}", L.BatchNormalization(), [image], training)
    case(f"batch_norm/rows/{mode}", L.BatchNormalization(momentum=0.7, epsilon=1e-2), [rows], training)
    case(f"batch_norm/first/{mode}", L.BatchNormalization(axis=1), [image], training)
    case(f"batch_norm/plain/{mode}", L.BatchNormalization(center=False, scale=False), [rows], training)
case("batch_norm/scale/train", L.BatchNormalization(center=False), [rows], True)
case("batch_norm/center/train", L.BatchNormalization(scale=False), [rows], True)
case("batch_norm/far", L.BatchNormalization(), [f32(area.random.normal(size=(48, 4)) + 1e4)], True)

case("layer_norm", L.LayerNormalization(), [rows])
case("layer_norm/sequence", L.LayerNormalization(epsilon=1e-5), [sequence])
case("layer_norm/axes", L.LayerNormalization(axis=[1, 2]), [sequence])
case("layer_norm/middle", L.LayerNormalization(axis=1), [sequence])
case("layer_norm/plain", L.LayerNormalization(center=False, scale=False), [rows])
case("layer_norm/center", L.LayerNormalization(scale=False), [rows])
case("layer_norm/scale", L.LayerNormalization(center=False), [rows])
case("layer_norm/rms", L.LayerNormalization(rms_scaling=True), [rows])
case("layer_norm/far", L.LayerNormalization(), [f32(area.random.normal(size=(3, 64)) + 1e4)])
case("rms_norm", L.RMSNormalization(), [rows])
case("rms_norm/axes", L.RMSNormalization(axis=[1, 2], epsilon=1e-3), [sequence])
case("group_norm", L.GroupNormalization(2), [(2, 3, 2, 4)])
case("group_norm/first", L.GroupNormalization(3, axis=1), [(2, 6, 2, 3)])
case("group_norm/instance", L.GroupNormalization(-1, center=False), [(2, 4, 3)])
case("group_norm/far", L.GroupNormalization(2), [f32(area.random.normal(size=(2, 9, 4)) + 1e4)])
case("unit_norm", L.UnitNormalization(), [rows])
case("unit_norm/axes", L.UnitNormalization(axis=[1, 2]), [sequence])

case("relu", L.ReLU(), [rows])
case("relu/six", L.ReLU(max_value=6.0), [rows], spread=6.0)
case("relu/all", L.ReLU(max_value=2.0, negative_slope=0.2, threshold=0.5), [rows], spread=2.0)
case("relu/threshold", L.ReLU(threshold=0.5), [rows])
case("relu/slope", L.ReLU(negative_slope=0.1), [rows])
case("leaky_relu", L.LeakyReLU(), [rows])
case("prelu", L.PReLU(), [sequence])
case("prelu/shared", L.PReLU(shared_axes=[1, 2]), [image])
case("elu", L.ELU(), [rows])
case("elu/small", L.ELU(0.5), [rows], spread=1e-3)
case("softmax", L.Softmax(), [rows])
case("softmax/middle", L.Softmax(axis=1), [sequence])
case("softmax/axes", L.Softmax(axis=[1, 2]), [sequence])
mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], np.float64)
case("softmax/mask", L.Softmax(), [(3, 4), mask], call=lambda xs: (xs[0], xs[1]), whole=(1,))

case("embedding", L.Embedding(6, 4), [area.random.integers(0, 6, size=(3, 5)).astype(np.float64)], whole=(0,))

for name, layer in [("add", L.Add()), ("multiply", L.Multiply()), ("average", L.Average()), ("maximum", L.Maximum()),
                    ("minimum", L.Minimum())]:
    case(f"merge/{name}", layer, [sequence, sequence, (2, 3)])
case("merge/subtract", L.Subtract(), [sequence, (2, 1, 3)])
case("merge/concatenate", L.Concatenate(axis=1), [sequence, (2, 2, 3)])
case("merge/dot", L.Dot(axes=(2, 1)), [(2, 3, 4), (2, 4, 5)])
case("merge/dot/vectors", L.Dot(axes=-1), [rows, rows])
case("merge/dot/mixed", L.Dot(axes=(1, 2)), [(2, 4), (2, 3, 4)])
case("merge/dot/images", L.Dot(axes=(1, 3)), [(2, 3, 2, 2), (2, 2, 2, 3)])
case("merge/dot/cosine", L.Dot(axes=(2, 2), normalize=True), [(2, 3, 4), (2, 5, 4)])

case("pad", L.ZeroPadding2D(((1, 2), (0, 3))), [image])
case("crop", L.Cropping2D(((1, 0), (1, 1))), [image])
case("up/nearest", L.UpSampling2D((2, 3)), [image])
case("up/bilinear", L.UpSampling2D((2, 2), interpolation="bilinear"), [image])
case("up/bilinear/odd", L.UpSampling2D((3, 1), interpolation="bilinear"), [image])
case("up/bilinear/four", L.UpSampling2D((4, 5), interpolation="bilinear"), [(1, 2, 2, 1)])
case("permute", L.Permute((3, 1, 2)), [image])
case("repeat", L.RepeatVector(3), [rows])
case("rescaling", L.Rescaling(0.5, offset=-1.0), [rows])

case("simple_rnn", L.SimpleRNN(3), [sequence])
case("simple_rnn/relu", L.SimpleRNN(3, activation="relu", use_bias=False, return_sequences=True), [sequence])
case("lstm", L.LSTM(3), [sequence])
case("lstm/sequences", L.LSTM(3, return_sequences=True), [sequence])
case("lstm/backwards", L.LSTM(3, return_sequences=True, go_backwards=True, use_bias=False), [sequence])
states = lambda xs: (xs[0], list(xs[1:]))
case("lstm/states", L.LSTM(3), [sequence, (2, 3), (2, 3)], call=states)
case("gru", L.GRU(3), [sequence])
case("gru/before", L.GRU(3, reset_after=False, return_sequences=True), [sequence])
case("gru/plain", L.GRU(3, use_bias=False, go_backwards=True, activation="sigmoid"), [sequence])
case("gru/states", L.GRU(3), [sequence, (2, 3)], call=lambda xs: (xs[0], xs[1]))
case("bidirectional", L.Bidirectional(L.LSTM(3)), [sequence])
case("bidirectional/sequences", L.Bidirectional(L.GRU(3, return_sequences=True)), [sequence])
case("bidirectional/sum", L.Bidirectional(L.SimpleRNN(3), merge_mode="sum"), [sequence])
case("bidirectional/mul", L.Bidirectional(L.SimpleRNN(3, return_sequences=True), merge_mode="mul"), [sequence])
case("bidirectional/ave", L.Bidirectional(L.SimpleRNN(3), merge_mode="ave"), [sequence])
case("bidirectional/states", L.Bidirectional(L.SimpleRNN(3)), [sequence, (2, 3), (2, 3)], call=states)
case("time_distributed", L.TimeDistributed(L.Dense(3, activation="tanh")), [sequence])

qv = lambda xs: tuple(xs)
# Without dropout Keras takes the path of JAX, which is f32 within, refuses values longer than keys, and averages all values
# where everything is masked; with dropout it takes its own, which does none of these and is the one to follow.
case("mha", L.MultiHeadAttention(2, 3, dropout=0.5), [(2, 3, 4), (2, 5, 4)], call=qv)
case("mha/key", L.MultiHeadAttention(2, 3, value_dim=4, output_shape=7, dropout=0.5), [(2, 3, 4), (2, 5, 3), (2, 5, 2)], call=qv)
case("mha/plain", L.MultiHeadAttention(3, 2, use_bias=False, dropout=0.5), [(2, 3, 4), (2, 3, 4)], call=qv)
case("mha/causal", L.MultiHeadAttention(2, 3, dropout=0.5), [(2, 3, 4), (2, 3, 4)], call=qv, use_causal_mask=True)
seen = (area.random.uniform(size=(2, 3, 5)) < 0.6).astype(np.float64)
seen[0, 1] = 0.0
masked = lambda xs: (*xs[:3], {"attention_mask": xs[3]})
shapes = [(2, 3, 4), (2, 5, 4), (2, 5, 4)]
case("mha/mask", L.MultiHeadAttention(2, 3, dropout=0.5), [*shapes, seen], call=masked, whole=(3,))
case("mha/both", L.MultiHeadAttention(2, 3, dropout=0.5), [*shapes, seen], call=masked, whole=(3,), use_causal_mask=True)
case("mha/shape", L.MultiHeadAttention(2, 3, output_shape=(2, 3), dropout=0.5), [(2, 3, 4), (2, 5, 4)], call=qv)
case("attention", L.Attention(), [(2, 3, 4), (2, 5, 3), (2, 5, 4)])
case("attention/scale", L.Attention(use_scale=True), [(2, 3, 4), (2, 5, 4)], use_causal_mask=True)
case("attention/concat", L.Attention(use_scale=True, score_mode="concat"), [(2, 3, 4), (2, 5, 4)])
case("group_norm/center", L.GroupNormalization(2, scale=False), [(2, 3, 4)])

area.write()

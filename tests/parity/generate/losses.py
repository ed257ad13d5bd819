"""Losses: values under every reduction, with and without weights, and gradients by the predictions."""

from common import Area, keras, np
import jax
import jax.numpy as jnp

L = keras.losses
area = Area("losses", seed=11)

N, F, T = 6, 5, 4
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


def soft(x):
    e = np.exp(x)
    return np.asarray(e / e.sum(-1, keepdims=True), np.float32).astype(np.float64)


x = area.normal("real", (N, F), 2.0)
area.normal("real_y", (N, F), 2.0)
area.uniform("positive", (N, F), 0.2, 4.0)
area.uniform("positive_y", (N, F), 0.3, 4.0)
area.uniform("probability", (N, F), 0.02, 0.98)
area.put("binary_y", area.random.integers(0, 2, size=(N, F)))
area.put("sign_y", area.random.integers(0, 2, size=(N, F)) * 2 - 1)
area.put("distribution", soft(area.random.normal(size=(N, F))))
area.put("distribution_y", soft(area.random.normal(size=(N, F))))
area.put("class_y", area.random.integers(0, F, size=N))
area.put("hot_y", np.eye(F)[area.random.integers(0, F, size=N)])
area.put("ignored_y", [0, 255, 3, 1, 255, 4])
area.put("zero_ignored_y", [0, 2, 0, 1, 3, 4])
area.normal("column", (N, 1))
area.normal("list_y", (N,))
# Predictions for each position of a sequence, and their class numbers.
area.normal("sequence", (N, T, F))
area.put("sequence_y", area.random.integers(0, F, size=(N, T)))
area.uniform("weight", (N,), 0.0, 2.0)
area.uniform("weights", (N, T), 0.0, 2.0)
area.put("no_weight", np.zeros(N))


def case(name, loss, y, p, weight=None, reduction="sum_over_batch_size"):
    """Stores the value as `name` and its gradient, that of its sum where it is not reduced, as `name/grad`."""
    y, p = area.arrays[y], area.arrays[p]
    w = None if weight is None else area.arrays[weight]
    loss.reduction = reduction
    f = lambda p: loss(jnp.asarray(y), p, None if w is None else jnp.asarray(w))
    area.put(name, f(jnp.asarray(p)))
    area.put(name + "/grad", jax.grad(lambda p: jnp.sum(f(p)))(jnp.asarray(p)))


# Each with every option that changes the formula.
case("mean_squared_error", L.MeanSquaredError(), "real_y", "real")
case("mean_absolute_error", L.MeanAbsoluteError(), "real_y", "real")
case("mean_absolute_percentage_error", L.MeanAbsolutePercentageError(), "positive_y", "real")
case("mean_squared_logarithmic_error", L.MeanSquaredLogarithmicError(), "positive_y", "positive")
case("mean_squared_logarithmic_error/clipped", L.MeanSquaredLogarithmicError(), "real_y", "real")
case("huber", L.Huber(), "real_y", "real")
case("huber/delta", L.Huber(delta=2.5), "real_y", "real")
case("log_cosh", L.LogCosh(), "real_y", "real")
case("cosine_similarity", L.CosineSimilarity(), "real_y", "real")
case("poisson", L.Poisson(), "positive_y", "positive")
case("binary_crossentropy", L.BinaryCrossentropy(), "binary_y", "probability")
case("binary_crossentropy/smooth", L.BinaryCrossentropy(label_smoothing=0.2), "binary_y", "probability")
case("binary_crossentropy/logits", L.BinaryCrossentropy(from_logits=True), "binary_y", "real")
case("binary_crossentropy/logits smooth", L.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), "binary_y", "real")
case("binary_focal_crossentropy", L.BinaryFocalCrossentropy(), "binary_y", "probability")
case("binary_focal_crossentropy/gamma", L.BinaryFocalCrossentropy(gamma=3.0, label_smoothing=0.1), "binary_y", "probability")
case("binary_focal_crossentropy/balanced logits", L.BinaryFocalCrossentropy(apply_class_balancing=True, alpha=0.3, from_logits=True), "binary_y", "real")
case("categorical_crossentropy", L.CategoricalCrossentropy(), "hot_y", "distribution")
case("categorical_crossentropy/unscaled", L.CategoricalCrossentropy(), "distribution_y", "positive")
case("categorical_crossentropy/smooth", L.CategoricalCrossentropy(label_smoothing=0.3), "hot_y", "distribution")
case("categorical_crossentropy/logits", L.CategoricalCrossentropy(from_logits=True), "hot_y", "real")
case("categorical_crossentropy/logits smooth", L.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), "distribution_y", "real")
case("sparse_categorical_crossentropy", L.SparseCategoricalCrossentropy(), "class_y", "distribution")
case("sparse_categorical_crossentropy/logits", L.SparseCategoricalCrossentropy(from_logits=True), "class_y", "real")
case("kl_divergence", L.KLDivergence(), "distribution_y", "distribution")
case("hinge", L.Hinge(), "sign_y", "real")
case("hinge/binary", L.Hinge(), "binary_y", "real")
case("squared_hinge", L.SquaredHinge(), "sign_y", "real")
case("squared_hinge/binary", L.SquaredHinge(), "binary_y", "real")
case("categorical_hinge", L.CategoricalHinge(), "hot_y", "real")
case("mean_squared_error/list", L.MeanSquaredError(), "list_y", "column")
case("sparse_categorical_crossentropy/sequence", L.SparseCategoricalCrossentropy(from_logits=True), "sequence_y", "sequence")

# Every reduction, with and without weights.
for reduction in REDUCTIONS:
    for weight in [None, "weight", "no_weight"]:
        tail = f"/{reduction}/{weight or 'unweighted'}"
        case("mean_squared_error" + tail, L.MeanSquaredError(), "real_y", "real", weight, reduction)
        for ignored, y in [(255, "ignored_y"), (0, "zero_ignored_y")]:
            loss = L.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)
            case(f"ignore {ignored}" + tail, loss, y, "real", weight, reduction)
    for weight in [None, "weights"]:
        tail = f"/{reduction}/{weight or 'unweighted'}"
        loss = L.SparseCategoricalCrossentropy(from_logits=True)
        case("sequence" + tail, loss, "sequence_y", "sequence", weight, reduction)

area.write()

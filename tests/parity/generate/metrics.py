"""Metrics: the result after each of three batches of different sizes, with and without weights."""

from common import Area, keras, np

M = keras.metrics
area = Area("metrics", seed=23)
SIZES = [7, 5, 3]
N, C, T = sum(SIZES), 6, 4


def soft(x):
    e = np.exp(x)
    return np.asarray(e / e.sum(-1, keepdims=True), np.float32).astype(np.float64)


area.normal("real", (N, 3), 2.0)
area.normal("real_y", (N, 3), 2.0)
area.uniform("positive", (N, 3), 0.2, 4.0)
area.uniform("positive_y", (N, 3), 0.3, 4.0)
area.uniform("probability", (N, 1), 0.0, 1.0)
area.put("binary_y", area.random.integers(0, 2, size=N))
area.uniform("labels", (N, C), 0.0, 1.0)
area.put("labels_y", area.random.integers(0, 2, size=(N, C)))
area.put("distribution", soft(area.random.normal(size=(N, C))))
area.put("class_y", area.random.integers(0, C, size=N))
area.put("hot_y", np.eye(C)[area.random.integers(0, C, size=N)])
# Halves: many predictions of a row tie.
area.put("ties", np.round(area.random.normal(size=(N, C)) * 2) / 2)
area.normal("logits", (N, 1), 2.0)
area.put("sequence", soft(area.random.normal(size=(N, T, C))))
area.put("sequence_y", area.random.integers(0, C, size=(N, T)))
# The corners of a curve: certain predictions and predictions at thresholds of an AUC of 5.
area.put("corners", area.random.integers(0, 5, size=(N, 1)) / 4)
area.put("none_y", np.zeros(N))
area.put("padded_y", np.where(area.random.uniform(size=N) < 0.3, 255, area.arrays["class_y"]))
# Far from zero, where a difference of squares would have no digits left in f32.
area.put("far_y", np.asarray(area.random.normal(size=(N, 2)) + [1.0, 40.0], np.float32))
area.put("far", np.asarray(area.arrays["far_y"] + area.random.normal(size=(N, 2)) * 0.5, np.float32))
area.uniform("weight", (N,), 0.0, 2.0)
area.uniform("weights", (N, T), 0.0, 2.0)
area.put("no_weight", np.zeros(N))
ends = np.cumsum(SIZES)


def case(name, metric, y, p, weights=(None, "weight", "no_weight"), prepare=lambda y, p: (y, p)):
    for weight in weights:
        metric.reset_state()
        results = []
        for start, end in zip(ends - SIZES, ends):
            by, bp = prepare(area.arrays[y][start:end], area.arrays[p][start:end])
            bw = None if weight is None else area.arrays[weight][start:end]
            metric.update_state(by, bp, sample_weight=bw)
            results.append(np.asarray(metric.result()))
        area.put(f"{name}/{weight or 'unweighted'}", results)


case("mean_squared_error", M.MeanSquaredError(), "real_y", "real")
case("root_mean_squared_error", M.RootMeanSquaredError(), "real_y", "real")
case("mean_absolute_error", M.MeanAbsoluteError(), "real_y", "real")
case("mean_absolute_percentage_error", M.MeanAbsolutePercentageError(), "positive_y", "real")
case("mean_squared_logarithmic_error", M.MeanSquaredLogarithmicError(), "positive_y", "positive")
case("cosine_similarity", M.CosineSimilarity(), "real_y", "real")
case("log_cosh", M.LogCoshError(), "real_y", "real")
case("poisson", M.Poisson(), "positive_y", "positive")
case("kl_divergence", M.KLDivergence(), "distribution", "distribution", prepare=lambda y, p: (y[:, ::-1], p))
case("hinge", M.Hinge(), "real_y", "real", prepare=lambda y, p: (np.sign(y), p))
case("squared_hinge", M.SquaredHinge(), "real_y", "real", prepare=lambda y, p: (np.sign(y), p))
case("categorical_hinge", M.CategoricalHinge(), "hot_y", "distribution")
case("binary_crossentropy", M.BinaryCrossentropy(), "labels_y", "labels")
case("binary_crossentropy/logits", M.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), "binary_y", "logits", prepare=lambda y, p: (y[:, None], p))
case("categorical_crossentropy", M.CategoricalCrossentropy(), "hot_y", "distribution")
case("categorical_crossentropy/logits", M.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), "hot_y", "ties")
case("sparse_categorical_crossentropy", M.SparseCategoricalCrossentropy(), "class_y", "distribution")
case("sparse_categorical_crossentropy/sequence", M.SparseCategoricalCrossentropy(), "sequence_y", "sequence", (None, "weights"))
case("binary_accuracy", M.BinaryAccuracy(), "binary_y", "probability")
case("binary_accuracy/threshold", M.BinaryAccuracy(threshold=0.3), "labels_y", "labels")
case("categorical_accuracy", M.CategoricalAccuracy(), "hot_y", "distribution")
case("sparse_categorical_accuracy", M.SparseCategoricalAccuracy(), "class_y", "distribution")
case("sparse_categorical_accuracy/column", M.SparseCategoricalAccuracy(), "class_y", "distribution", prepare=lambda y, p: (y[:, None], p))
case("sparse_categorical_accuracy/sequence", M.SparseCategoricalAccuracy(), "sequence_y", "sequence", (None, "weights"))
for k in [1, 3]:
    case(f"top_k_categorical_accuracy/{k}", M.TopKCategoricalAccuracy(k=k), "hot_y", "ties")
    case(f"sparse_top_k_categorical_accuracy/{k}", M.SparseTopKCategoricalAccuracy(k=k), "class_y", "ties")
case("sparse_top_k_categorical_accuracy/sequence", M.SparseTopKCategoricalAccuracy(k=2), "sequence_y", "sequence", (None, "weights"))

for kind in [M.TruePositives, M.FalsePositives, M.TrueNegatives, M.FalseNegatives]:
    name = {"TruePositives": "true_positives", "FalsePositives": "false_positives",
            "TrueNegatives": "true_negatives", "FalseNegatives": "false_negatives"}[kind.__name__]
    case(name, kind(), "binary_y", "probability")
    case(name + "/threshold", kind(thresholds=0.7), "labels_y", "labels")
for kind, name in [(M.Precision, "precision"), (M.Recall, "recall")]:
    case(name, kind(), "binary_y", "probability")
    case(name + "/threshold", kind(thresholds=0.3), "labels_y", "labels")
    case(name + "/none", kind(), "none_y", "probability")
    case(name + "/top", kind(top_k=2), "labels_y", "ties")
    case(name + "/top class", kind(top_k=2, class_id=1), "labels_y", "labels")
    case(name + "/top threshold", kind(top_k=3, thresholds=0.6), "labels_y", "labels")
    case(name + "/class", kind(class_id=4), "labels_y", "labels")
for curve in ["ROC", "PR"]:
    for method in ["interpolation", "minoring", "majoring"]:
        name = f"auc/{curve}/{method}"
        case(name, M.AUC(curve=curve, summation_method=method), "binary_y", "probability")
        case(name + "/5", M.AUC(5, curve, method), "binary_y", "corners")
        case(name + "/labels", M.AUC(50, curve, method), "labels_y", "labels", (None,))
    case(f"auc/{curve}/none", M.AUC(curve=curve), "none_y", "probability")
    case(f"auc/{curve}/logits", M.AUC(curve=curve, from_logits=True), "binary_y", "logits")
for average in ["macro", "micro", "weighted"]:
    case(f"f1_score/{average}", M.F1Score(average=average), "hot_y", "distribution")
    case(f"f1_score/{average}/threshold", M.F1Score(average=average, threshold=0.4), "labels_y", "labels")
case("f1_score/binary", M.F1Score(average="macro", threshold=0.5), "binary_y", "probability", prepare=lambda y, p: (y[:, None], p))
best = lambda y, p: (y, p.argmax(-1))
case("mean_io_u", M.MeanIoU(C, dtype="float64"), "class_y", "distribution", prepare=best)
case("mean_io_u/ignored", M.MeanIoU(C, ignore_class=255, dtype="float64"), "padded_y", "distribution", prepare=best)
case("mean_io_u/sequence", M.MeanIoU(C, dtype="float64"), "sequence_y", "sequence", (None, "weights"), prepare=best)
case("mean_io_u/binary", M.MeanIoU(2, dtype="float64"), "binary_y", "probability", prepare=lambda y, p: (y, p[:, 0] > 0.5))
case("r2_score", M.R2Score(), "real_y", "real", (None, "weight"))
case("r2_score/far", M.R2Score(), "far_y", "far", (None, "weight"))

# The matrix itself, as scikit-learn and TensorFlow count it: rows are truths.
matrix = np.zeros((C, C))
np.add.at(matrix, (area.arrays["class_y"].astype(int), area.arrays["distribution"].argmax(-1)), area.arrays["weight"])
area.put("matrix", matrix)

# Values instead of pairs.
for kind, name in [(M.Mean, "mean"), (M.Sum, "sum")]:
    metric = kind()
    for weight in [None, "weight", "no_weight"]:
        metric.reset_state()
        results = []
        for start, end in zip(ends - SIZES, ends):
            w = None if weight is None else area.arrays[weight][start:end]
            metric.update_state(area.arrays["real"][start:end], sample_weight=w)
            results.append(np.asarray(metric.result()))
        area.put(f"{name}/{weight or 'unweighted'}", results)

area.write()

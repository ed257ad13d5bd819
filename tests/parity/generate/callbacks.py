"""Decisions of Keras' callbacks for made-up scores: no model trains here."""

import types

from common import Area, f32, keras, np

area = Area("callbacks")
random = area.random


class Stub:
    """What a callback needs of a model."""

    def __init__(self, rate=0.1):
        self.optimizer = types.SimpleNamespace(learning_rate=np.float64(rate))
        self.stop_training = False
        self.weights = None
        self.saved = []
        self.now = None

    def get_weights(self):
        return self.now

    def set_weights(self, weights):
        self.weights = weights

    def save_weights(self, path, overwrite=True):
        self.saved.append((self.now, path))


def scores(epochs, start=0):
    """A walk with plateaus, repeated values, and now and then a NaN. It is never the first score that is looked at, at
    `start`: for Keras that is the best one then, which nothing is better than."""
    kind = random.integers(0, 4)
    if kind == 0:
        values = np.cumsum(random.normal(size=epochs)) * 0.1
    elif kind == 1:
        values = random.integers(0, 6, size=epochs) / 8.0
    elif kind == 2:
        values = 1.0 / (1.0 + np.arange(epochs)) + random.normal(size=epochs) * 0.05
    else:
        values = np.repeat(random.normal(size=epochs), random.integers(1, 4, size=epochs))[:epochs]
    values = f32(values)
    if random.random() < 0.2:
        at = random.integers(1, epochs)
        if at != start:
            values[at] = np.nan
    return values


def choose(*values):
    return values[random.integers(0, len(values))]


MODES = {0: "min", 1: "max"}

# Early stopping: options (up, min_delta, patience, baseline or NaN, start_from_epoch), scores; then the epoch it stopped
# after or -1, the epoch whose weights were restored or -1, the best epoch's score or NaN.
for case in range(120):
    epochs = int(random.integers(3, 25))
    up, delta, patience = int(random.integers(0, 2)), choose(0.0, 0.0, 0.125, 0.01, -0.01), int(random.integers(0, 5))
    baseline, start = choose(None, None, 0.25, 0.5, 0.0), int(choose(0, 0, 1, 4))
    values = scores(epochs, start)
    callback = keras.callbacks.EarlyStopping(
        monitor="s", min_delta=delta, patience=patience, mode=MODES[up], baseline=baseline,
        restore_best_weights=True, start_from_epoch=start,
    )
    model = Stub()
    callback.set_model(model)
    callback.on_train_begin()
    stopped = -1
    for epoch, value in enumerate(values):
        model.now = epoch
        callback.on_epoch_end(epoch, {"s": float(value)})
        if model.stop_training:
            stopped = epoch
            break
    callback.on_train_end()
    options = [up, delta, patience, np.nan if baseline is None else baseline, start]
    restored = -1 if model.weights is None else model.weights
    best = np.nan if callback.best is None else float(callback.best)
    area.put(f"stopping/{case:03}/options", options)
    area.put(f"stopping/{case:03}/scores", values)
    area.put(f"stopping/{case:03}/decisions", [stopped, restored, best])

# Plateaus: options (up, min_delta, factor, patience, cooldown, min_lr, first rate), scores; then the rate after each epoch.
for case in range(120):
    epochs = int(random.integers(5, 30))
    up, delta, factor = int(random.integers(0, 2)), choose(1e-4, 0.0, 0.125, 0.01), choose(0.1, 0.5, 0.9)
    patience, cooldown, least = int(random.integers(0, 5)), int(choose(0, 0, 1, 3)), choose(0.0, 0.0, 0.01, 0.03125)
    rate = choose(0.1, 0.5)
    values = scores(epochs)
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="s", factor=factor, patience=patience, mode=MODES[up], min_delta=delta, cooldown=cooldown, min_lr=least
    )
    model = Stub(rate)
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"s": float(value)})
        rates.append(float(model.optimizer.learning_rate))
    area.put(f"plateau/{case:03}/options", [up, delta, factor, patience, cooldown, least, rate])
    area.put(f"plateau/{case:03}/scores", values)
    area.put(f"plateau/{case:03}/rates", rates)

# Checkpoints of the best: options (up, threshold or NaN), scores; then the epochs that were saved.
for case in range(60):
    epochs = int(random.integers(3, 25))
    up, threshold = int(random.integers(0, 2)), choose(None, None, 0.25, 0.0)
    values = scores(epochs)
    callback = keras.callbacks.ModelCheckpoint(
        "{epoch}.weights.h5", monitor="s", save_best_only=True, save_weights_only=True, mode=MODES[up],
        initial_value_threshold=threshold,
    )
    model = Stub()
    callback.set_model(model)
    for epoch, value in enumerate(values):
        model.now = epoch
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {"s": float(value)})
    area.put(f"saving/{case:03}/options", [up, np.nan if threshold is None else threshold])
    area.put(f"saving/{case:03}/scores", values)
    area.put(f"saving/{case:03}/epochs", [epoch for epoch, _ in model.saved])

# Checkpoints every so many batches: options (every, steps per execution, steps of an epoch, epochs); then (epoch, last
# batch) of each that was saved, from 0.
for case in range(60):
    every, fused = int(random.integers(1, 12)), int(choose(1, 1, 2, 3, 16))
    steps, epochs = int(random.integers(1, 12)), int(random.integers(1, 5))
    callback = keras.callbacks.ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True, save_freq=every, mode="min")
    model = Stub()
    callback.set_model(model)
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch)
        for first in range(0, steps, fused):
            last = min(first + fused, steps) - 1
            model.now = (epoch, last)
            callback.on_train_batch_end(last, {})
        callback.on_epoch_end(epoch, {})
    area.put(f"cadence/{case:03}/options", [every, fused, steps, epochs])
    area.put(f"cadence/{case:03}/saved", np.reshape([now for now, _ in model.saved], (-1, 2)))

# Which way a metric is better: 1 for up, 0 for down, by its name.
metrics = keras.metrics
arguments = {
    "MeanIoU": dict(num_classes=2), "IoU": dict(num_classes=2, target_class_ids=[0]), "BinaryIoU": {},
    "OneHotIoU": dict(num_classes=2, target_class_ids=[0]), "OneHotMeanIoU": dict(num_classes=2),
    "PrecisionAtRecall": dict(recall=0.5), "RecallAtPrecision": dict(precision=0.5),
    "SensitivityAtSpecificity": dict(specificity=0.5), "SpecificityAtSensitivity": dict(sensitivity=0.5),
    "MeanMetricWrapper": None, "Metric": None, "Accuracy": {},
}
for name in sorted(dir(metrics)):
    kind = getattr(metrics, name)
    if not isinstance(kind, type) or arguments.get(name, {}) is None:
        continue
    metric = kind(**arguments.get(name, {}))
    direction = getattr(metric, "_direction", None)
    if direction is not None:
        area.put(f"direction/{metric.name}", [direction == "up"])

area.write()

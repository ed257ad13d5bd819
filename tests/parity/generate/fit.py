"""Whole trajectories of fit: History, evaluate, predictions and final weights, from initial weights that are stored too."""

from common import Area, f32, keras, np

area = Area("fit", seed=5)
layers, optimizers = keras.layers, keras.optimizers


def start(case, model):
    """Gives every variable seeded numbers, which are stored."""
    for v in model.weights:
        layer, name = v.path.split("/")[-2:]
        shape = tuple(v.shape)
        scale = 0.1 if name == "bias" else 1 / np.sqrt(shape[0])
        v.assign(area.normal(f"{case}/init/{layer}/{name}", shape, scale))


def finish(case, model, history, evaluated=None, predicted=None):
    for name, values in history.history.items():
        area.put(f"{case}/history/{name}", values)
    for v in model.weights:
        layer, name = v.path.split("/")[-2:]
        area.put(f"{case}/final/{layer}/{name}", v)
    for name, value in (evaluated or {}).items():
        area.put(f"{case}/evaluated/{name}", [value])
    for name, value in (predicted or {}).items():
        area.put(f"{case}/predicted/{name}", value)


def dense(units, name, activation=None, **kw):
    return layers.Dense(units, activation=activation, name=name, **kw)


def guide():
    """The guide's model: one neuron on 32 inputs. The last batch of an epoch is smaller."""
    x, y = area.uniform("guide/x", (150, 32)), area.uniform("guide/y", (150, 1))
    inputs = keras.Input((32,))
    model = keras.Model(inputs, dense(1, "dense")(inputs))
    start("guide", model)
    model.compile(optimizer=optimizers.Adam(1e-2), loss="mse", metrics=["mae"])
    history = model.fit(x, y, epochs=4, validation_split=0.2, shuffle=False, verbose=0)
    listed = model.evaluate(x, y, verbose=0)
    area.put("guide/listed", listed)
    finish("guide", model, history, predicted={"dense": model.predict(x[:40], verbose=0)})


def classifier(case, compiled, weights, **fit):
    x, y = area.arrays["classifier/x"], area.arrays["classifier/y"]
    model = keras.Sequential([keras.Input((6,)), dense(8, "hidden", "tanh"), dense(3, "scores", "softmax")])
    start(case, model)
    model.compile(optimizer=optimizers.SGD(0.2, momentum=0.9), loss="sparse_categorical_crossentropy", **compiled)
    kw = {"sample_weight": weights} if weights is not None else {}
    history = model.fit(x, y, batch_size=16, epochs=3, validation_split=0.25, shuffle=False, verbose=0, **kw, **fit)
    kw = {"sample_weight": weights} if weights is not None else {}
    finish(case, model, history, model.evaluate(x, y, verbose=0, return_dict=True, **kw))


def two(case, compiled, weights):
    """Two inputs, two outputs."""
    a, b, y, z = (area.arrays[f"two/{name}"] for name in "abyz")
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    hidden = dense(6, "hidden", "tanh")(layers.Concatenate()([left, right]))
    model = keras.Model([left, right], [dense(1, "price")(hidden), dense(2, "kind", "softmax")(hidden)])
    start(case, model)
    model.compile(
        optimizer=optimizers.RMSprop(1e-2),
        loss={"price": "mse", "kind": "categorical_crossentropy"},
        loss_weights={"price": 1.0, "kind": 0.3},
        **compiled,
    )
    kw = {"sample_weight": weights} if weights is not None else {}
    history = model.fit([a, b], [y, z], batch_size=16, epochs=3, shuffle=False, verbose=0, **kw)
    evaluated = model.evaluate([a, b], [y, z], verbose=0, return_dict=True)
    price, kind = model.predict([a, b], verbose=0)
    finish(case, model, history, evaluated, {"price": price, "kind": kind})


def frozen():
    """A layer frozen after two epochs, by a new compile."""
    x, y = area.normal("frozen/x", (40, 5)), area.normal("frozen/y", (40, 1))
    model = keras.Sequential([keras.Input((5,)), dense(7, "first", "tanh"), dense(4, "middle", "tanh"), dense(1, "last")])
    start("frozen", model)
    model.compile(optimizer=optimizers.Adam(1e-2), loss="mse")
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for v in model.weights:
        layer, name = v.path.split("/")[-2:]
        area.put(f"frozen/between/{layer}/{name}", v)
    model.get_layer("middle").trainable = False
    model.compile(optimizer=optimizers.Adam(1e-2), loss="mse")
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    finish("frozen", model, history)


def hundred():
    """A hundred steps, to see how f32 departs from f64."""
    x = area.normal("hundred/x", (40, 4))
    y = area.put("hundred/y", f32(np.sin(x[:, :1]) + 0.5 * x[:, 1:2] * x[:, 2:3]))
    model = keras.Sequential([keras.Input((4,)), dense(16, "hidden", "tanh"), dense(1, "last")])
    start("hundred", model)
    model.compile(optimizer=optimizers.Adam(1e-2), loss="mse", metrics=["mae"])
    finish("hundred", model, model.fit(x, y, batch_size=8, epochs=20, shuffle=False, verbose=0))


def steps():
    """Fewer steps than a pass, which goes on in the next epoch; an epoch to begin with; rare and short validation."""
    x, y = area.arrays["frozen/x"], area.arrays["frozen/y"]
    model = keras.Sequential([keras.Input((5,)), dense(1, "last")])
    start("steps", model)
    model.compile(optimizer=optimizers.SGD(0.1), loss="mae", metrics=["mse"])
    history = model.fit(
        x, y, batch_size=8, epochs=6, initial_epoch=2, validation_data=(x[:20], y[:20]), validation_freq=[4, 6],
        validation_batch_size=8, validation_steps=2, shuffle=False, verbose=0,
    )
    area.put("steps/epoch", history.epoch)
    finish("steps", model, history)


guide()
area.normal("classifier/x", (60, 6))
labels = area.integers("classifier/y", (60, 1), 3)
weights = area.uniform("classifier/weights", (60,), 0.0, 2.0)
classifier("by_class", {"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}, None, class_weight={0: 0.5, 2: 3.0})
classifier("by_sample", {"metrics": ["accuracy"], "weighted_metrics": ["accuracy", "sparse_categorical_crossentropy"]}, weights)
area.normal("two/a", (50, 3)), area.normal("two/b", (50, 2)), area.normal("two/y", (50, 1))
area.put("two/z", np.eye(2)[area.random.integers(0, 2, 50)])
two("two_plain", {"metrics": {"price": ["mae", "mse"], "kind": "accuracy"}}, None)
w, v = area.uniform("two/w", (50,), 0.0, 2.0), area.uniform("two/v", (50,), 0.0, 2.0)
two("two_weighted", {"metrics": ["mae", "mse"], "weighted_metrics": ["mae", "accuracy"]}, [w, v])
frozen()
hundred()
steps()
area.write()

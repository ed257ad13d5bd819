"""Optimizers: ten steps on three parameters with given gradients, for each rule and many sets of options.

Under `<case>/`: `parameters/<index>/<step>` after the first, second and last step, and `variables/<index>` in Keras' own
order after the last, the iteration count included. `<case>/names` cannot be stored as numbers; `optimizers.rs` has them.
"""

from common import Area, f32, keras, np

STEPS = 10
SHAPES = [(4, 3), (3,), (2, 2, 2)]
LOOK = [0, 1, STEPS - 1]
O = keras.optimizers
S = keras.optimizers.schedules

CASES = {
    "sgd": lambda: O.SGD(),
    "sgd_momentum": lambda: O.SGD(0.1, momentum=0.9),
    "sgd_nesterov": lambda: O.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: O.RMSprop(),
    "rmsprop_momentum": lambda: O.RMSprop(0.01, rho=0.8, momentum=0.5),
    "rmsprop_centered": lambda: O.RMSprop(0.01, momentum=0.9, centered=True, epsilon=1e-3),
    "adam": lambda: O.Adam(),
    "adam_amsgrad": lambda: O.Adam(0.01, beta_1=0.8, beta_2=0.9, amsgrad=True),
    "adamw": lambda: O.AdamW(0.01),
    "adamw_excluded": lambda: excluded(O.AdamW(0.01, weight_decay=0.1)),
    "adagrad": lambda: O.Adagrad(),
    "adagrad_initial": lambda: O.Adagrad(0.1, initial_accumulator_value=0.5, epsilon=1e-3),
    "adadelta": lambda: O.Adadelta(),
    "adadelta_rate": lambda: O.Adadelta(1.0, rho=0.8, epsilon=1e-3),
    "adamax": lambda: O.Adamax(),
    "adamax_options": lambda: O.Adamax(0.01, beta_1=0.8, beta_2=0.9),
    "nadam": lambda: O.Nadam(),
    "nadam_options": lambda: O.Nadam(0.01, beta_1=0.8, beta_2=0.9),
    "lion": lambda: O.Lion(),
    "lion_options": lambda: O.Lion(0.01, beta_1=0.8, beta_2=0.9, weight_decay=0.1),
    "clipvalue": lambda: O.SGD(0.1, momentum=0.9, clipvalue=0.5),
    "clipnorm": lambda: O.SGD(0.1, momentum=0.9, clipnorm=1.5),
    "global_clipnorm": lambda: O.Adam(0.01, global_clipnorm=1.5),
    "ema": lambda: O.SGD(0.1, use_ema=True, ema_momentum=0.9),
    "ema_overwrite": lambda: O.Adam(0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=3),
    "accumulation": lambda: O.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3),
    "accumulation_nadam": lambda: O.Nadam(0.01, gradient_accumulation_steps=2),
    "accumulation_ema": lambda: O.Adam(
        0.01, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=2
    ),
    "all": lambda: O.AdamW(
        S.ExponentialDecay(0.02, 2, 0.8),
        weight_decay=0.1,
        amsgrad=True,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.9,
        gradient_accumulation_steps=2,
    ),
    "scheduled": lambda: O.RMSprop(S.CosineDecay(0.01, 8, warmup_target=0.05, warmup_steps=3), momentum=0.5),
}


def excluded(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


area = Area("optimizers", seed=3)
# The bias starts from 0, where f32 can hold a small step exactly.
start = [area.put(f"start/{i}", f32(area.random.normal(size=s)) * (i != 1)) for i, s in enumerate(SHAPES)]
# Of no tiny magnitude, so that no sign hangs on rounding.
gradients = [
    [
        area.put(f"gradients/{step}/{i}", f32(np.sign(g) * (0.05 + np.abs(g))))
        for i, g in enumerate(area.random.normal(size=shape) for shape in SHAPES)
    ]
    for step in range(STEPS)
]
for name, make in CASES.items():
    variables = [keras.Variable(value, name=n) for value, n in zip(start, ["kernel", "bias", "embeddings"])]
    optimizer = make()
    optimizer.build(variables)
    for step in range(STEPS):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients[step]], variables)
        if step in LOOK:
            for i, variable in enumerate(variables):
                area.put(f"{name}/parameters/{i}/{step}", variable.numpy())
    for i, variable in enumerate(optimizer.variables):
        area.put(f"{name}/variables/{i}", variable.numpy())
    print(name, [variable.name for variable in optimizer.variables])
area.write()

"""Learning-rate schedules at the steps around their edges and far beyond."""

from common import Area, keras, np

S = keras.optimizers.schedules

CASES = {
    "exponential": S.ExponentialDecay(0.1, 10, 0.9),
    "exponential_staircase": S.ExponentialDecay(0.1, 7, 0.5, staircase=True),
    "exponential_slow": S.ExponentialDecay(0.01, 100_000, 0.96),
    "piecewise": S.PiecewiseConstantDecay([5, 20, 1000], [0.1, 0.05, 0.2, 0.001]),
    "piecewise_one": S.PiecewiseConstantDecay([1_000_000], [1.0, 0.1]),
    "polynomial": S.PolynomialDecay(0.1, 20),
    "polynomial_power": S.PolynomialDecay(0.1, 33, end_learning_rate=0.02, power=0.5),
    "polynomial_square": S.PolynomialDecay(0.5, 1000, end_learning_rate=0.0, power=2.0),
    "polynomial_cycle": S.PolynomialDecay(0.1, 7, end_learning_rate=0.01, power=2.0, cycle=True),
    "polynomial_cycle_line": S.PolynomialDecay(0.1, 10, end_learning_rate=0.01, cycle=True),
    "inverse_time": S.InverseTimeDecay(0.1, 10, 0.5),
    "inverse_time_staircase": S.InverseTimeDecay(0.1, 7, 0.5, staircase=True),
    "cosine": S.CosineDecay(0.1, 20),
    "cosine_alpha": S.CosineDecay(0.1, 1000, alpha=0.1),
    "cosine_warmup": S.CosineDecay(0.01, 20, alpha=0.05, warmup_target=0.1, warmup_steps=10),
    "cosine_warmup_from_0": S.CosineDecay(0.0, 1000, warmup_target=0.3, warmup_steps=21),
    "cosine_no_warmup_steps": S.CosineDecay(0.01, 20, warmup_target=0.1),
    "restarts": S.CosineDecayRestarts(0.1, 10),
    "restarts_equal": S.CosineDecayRestarts(0.1, 7, t_mul=1.0, m_mul=0.9, alpha=0.1),
    "restarts_options": S.CosineDecayRestarts(0.1, 10, t_mul=1.5, m_mul=0.8, alpha=0.05),
    "restarts_long": S.CosineDecayRestarts(0.1, 100, t_mul=1.1, m_mul=0.95),
}
# Edges of all of them, the last batches of periods, and counts that f32 still holds.
STEPS = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 19, 20, 21, 22, 29, 30, 31, 33, 49, 50, 69, 70, 71, 99, 100, 101]
STEPS += [209, 210, 211, 310, 311, 999, 1000, 1001, 10_229, 10_230, 10_231, 70_000, 999_999, 1_000_000, 1_000_001, 10_000_000]

area = Area("schedules")
area.put("steps", STEPS)
for name, schedule in CASES.items():
    area.put(name, [float(schedule(np.int32(step))) for step in STEPS])
area.write()

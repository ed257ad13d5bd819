"""What the generators share: Keras on JAX in f64, seeded inputs that f32 holds exactly, and a file to write to."""

import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_ENABLE_X64"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras.src.backend.common import dtypes  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

keras.config.set_floatx("float64")
# On JAX, Keras takes f64 for f32 wherever it promotes (tanh, exp, mean, var, ...), as JAX does without x64.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"


def f32(x):
    """Rounds to what the other side can be given, and keeps f64."""
    return np.asarray(x, np.float32).astype(np.float64)


class Area:
    """Arrays of one file of ../data."""

    def __init__(self, name, seed=0):
        self.path = pathlib.Path(__file__).parent.parent / "data" / f"{name}.safetensors"
        self.arrays = {}
        self.random = np.random.default_rng(seed)

    def put(self, name, value):
        assert name not in self.arrays, name
        self.arrays[name] = np.array(value, np.float64, copy=True, order="C")
        return self.arrays[name]

    def normal(self, name, shape, scale=1.0):
        """Stores and returns normal numbers."""
        return self.put(name, f32(self.random.normal(size=shape) * scale))

    def uniform(self, name, shape, low=0.0, high=1.0):
        """Stores and returns uniform numbers."""
        return self.put(name, f32(self.random.uniform(low, high, size=shape)))

    def integers(self, name, shape, high):
        """Stores and returns integers below `high`."""
        return self.put(name, self.random.integers(0, high, size=shape))

    def write(self):
        self.path.parent.mkdir(exist_ok=True)
        save_file(self.arrays, str(self.path))
        print(f"{self.path.name}: {len(self.arrays)} arrays, {self.path.stat().st_size} bytes")

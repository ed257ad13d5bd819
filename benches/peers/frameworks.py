#!/usr/bin/env python3
"""The benchmark's cases on what else runs on this machine: JAX, and PyTorch (eager and compiled), on CPU or CUDA.

    benches/peers/frameworks.py jax|torch|torch-compile [case...] [--cuda] [--tf32] [--large] [--times N] [--seconds S]

`--large` adds what only a GPU finishes in reasonable time, `--times` has steps' batches N times as long.
Prints a line of JSON for each case, with the keys and the names of `cargo bench --bench kernels` and `--bench steps`; what
is not installed is said on stderr, with exit status 3. Products are in f32 unless `--tf32` allows CUDA its shorter form (both frameworks would take it for convolutions by themselves). `scripts/bench-peers` runs it in turns with ours. Steps are forward, backward and Adam(1e-3)
on one resident batch, without reading the loss. Deliberately absent: checks of results, and whatever needs a GPU of another vendor.
"""
import json
import sys
import time

MLP = [784, 512, 512, 10]


def measure(name, run, wait, seconds):
    """Blocks of runs between two waits; the median of the blocks' means."""
    for _ in range(3):
        wait(run())
    start = time.perf_counter()
    wait(run())
    one = max(time.perf_counter() - start, 1e-7)
    runs = int(min(max(seconds / 20 / one, 1), 1000))
    blocks, begun = [], time.perf_counter()
    while len(blocks) < 10 or time.perf_counter() - begun < seconds:
        start, out = time.perf_counter(), None
        for _ in range(runs):
            out = run()
        wait(out)
        blocks.append((time.perf_counter() - start) / runs * 1e3)
    print(json.dumps({"case": name, "ms_median": round(sorted(blocks)[len(blocks) // 2], 5), "n": len(blocks) * runs}), flush=True)


def with_jax(chosen, cuda, tf32, seconds, large, times):
    try:
        import jax
    except ImportError:
        sys.exit(absent("jax"))
    import jax.numpy as jnp

    jax.config.update("jax_platforms", "cuda" if cuda else "cpu")
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if tf32 else "highest")
    keys = iter(jax.random.split(jax.random.key(0), 64))
    normal = lambda *shape: jax.random.normal(next(keys), shape)

    def layer_norm(x, scale, shift):
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-3) * scale + shift

    def dense_on(x, layer):
        return x @ layer[0] + layer[1]

    def cross_entropy(logits, labels):
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()

    def mlp(p, x):
        for at, (w, b) in enumerate(p):
            x = x @ w + b
            x = jax.nn.relu(x) if at + 1 < len(p) else x
        return x

    def cnn(p, x):
        for w, b in p[:2]:
            dims = jax.lax.conv_dimension_numbers(x.shape, w.shape, ("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=dims) + b)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return mlp(p[2:], x.reshape(len(x), -1))

    def tfm(p, ids):
        """Two pre-norm blocks of width 128 with 4 causal heads; logits of a row for each character."""
        x = p["characters"][ids] + p["places"]
        for b in p["blocks"]:
            y = layer_norm(x, *b["norm1"])
            q, k, v = (dense_on(y, b[name]).reshape(*y.shape[:2], 4, 32) for name in "qkv")
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            x = x + dense_on(y.reshape(x.shape), b["o"])
            y = jax.nn.gelu(dense_on(layer_norm(x, *b["norm2"]), b["up"]), approximate=False)
            x = x + dense_on(y, b["down"])
        return dense_on(layer_norm(x, *p["norm"]), p["head"]).reshape(-1, 96)

    def step(loss, params, *batch):
        """Forward, backward and Adam in one jit that gives its state away."""

        def update(state, *batch):
            p, m, v, t = state
            value, g = jax.value_and_grad(loss)(p, *batch)
            t = t + 1
            m = jax.tree.map(lambda m, g: m + 0.1 * (g - m), m, g)
            v = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), v, g)
            rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), p, m, v)
            return value, (p, m, v, t)

        jitted = jax.jit(update, donate_argnums=0)
        zeros = lambda: jax.tree.map(jnp.zeros_like, params)
        held = [(params, zeros(), zeros(), jnp.float32(0))]

        def run():
            value, held[0] = jitted(held[0], *batch)
            return value

        return run

    def kernel(f, *inputs):
        jitted = jax.jit(f)
        return lambda: jitted(*inputs)

    dense = lambda sizes: [(normal(a, b) * a**-0.5, jnp.zeros(b)) for a, b in zip(sizes, sizes[1:])]
    labels = lambda n, classes=10: jax.random.randint(next(keys), (n,), 0, classes)
    norm = lambda: (jnp.ones(128), jnp.zeros(128))
    one = lambda a, b: dense([a, b])[0]
    block = lambda: {"norm1": norm(), "norm2": norm(), "up": one(128, 512), "down": one(512, 128), **{name: one(128, 128) for name in "qkvo"}}
    transformer = lambda: {
        "characters": normal(96, 128) * 0.05, "places": normal(64, 128) * 0.05, "blocks": [block(), block()], "norm": norm(), "head": one(128, 96)
    }
    conv = lambda a, b: (normal(3, 3, a, b) * 0.1, jnp.zeros(b))
    classify = lambda net: lambda p, x, y: cross_entropy(net(p, x), y)
    n = times or 1
    cases = {
        "matmul_nn_512": lambda: kernel(jnp.matmul, normal(512, 512), normal(512, 512)),
        "matmul_nn_1024": lambda: kernel(jnp.matmul, normal(1024, 1024), normal(1024, 1024)),
        "gelu_fma_4m": lambda: kernel(lambda a, b, c: jax.nn.gelu(a * b + c, approximate=False), *(normal(1 << 22) for _ in range(3))),
        "sum_4m": lambda: kernel(jnp.sum, normal(1 << 22)),
        "softmax_1024": lambda: kernel(jax.nn.softmax, normal(1024, 1024)),
        "layernorm_1024": lambda: kernel(layer_norm, normal(1024, 1024), normal(1024), normal(1024)),
        "step_seed": lambda: step(lambda p, x, y: ((mlp(p, x) - y) ** 2).mean(), dense([32, 1]), normal(32 * n, 32), normal(32 * n, 1)),
        "step_mlp": lambda: step(classify(mlp), dense(MLP), normal(128 * n, 784), labels(128 * n)),
        "step_cnn": lambda: step(classify(cnn), [conv(1, 32), conv(32, 64), *dense([1600, 128, 10])], normal(64 * n, 28, 28, 1), labels(64 * n)),
        "step_tfm": lambda: step(classify(tfm), transformer(), labels(1024 * n, 96).reshape(-1, 64), labels(1024 * n, 96)),
    }
    if large:
        for size in [2048, 4096, 8192]:
            cases[f"matmul_nn_{size}"] = lambda size=size: kernel(jnp.matmul, normal(size, size), normal(size, size))
        cases["gelu_fma_16m"] = lambda: kernel(lambda a, b, c: jax.nn.gelu(a * b + c, approximate=False), *(normal(1 << 24) for _ in range(3)))
        cases["sum_16m"] = lambda: kernel(jnp.sum, normal(1 << 24))
        cases["softmax_4096"] = lambda: kernel(jax.nn.softmax, normal(4096, 4096))
        cases["layernorm_4096"] = lambda: kernel(layer_norm, normal(4096, 4096), normal(4096), normal(4096))
    for name, make in cases.items():
        if chosen(name):
            measure(named(name, times), make(), jax.block_until_ready, seconds)


def with_torch(chosen, cuda, tf32, seconds, large, times, compiled):
    try:
        import torch
        from torch import nn
    except ImportError:
        sys.exit(absent("torch"))
    device = "cuda" if cuda else "cpu"
    torch.set_default_device(device)
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    normal = torch.randn
    as_run = torch.compile if compiled else lambda f: f

    def wait(_):
        if cuda:
            torch.cuda.synchronize()

    def kernel(f, *inputs):
        f = as_run(f)
        return lambda: f(*inputs)

    def step(net, loss, x, y):
        optimizer = torch.optim.Adam(net.parameters(), 1e-3, eps=1e-7, **({} if cuda else {"fused": True}))
        forward = as_run(lambda x, y: loss(net(x), y))

        def run():
            optimizer.zero_grad()
            value = forward(x, y)
            value.backward()
            optimizer.step()
            return value

        return run

    def mlp(sizes):
        layers = [part for a, b in zip(sizes, sizes[1:]) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    cnn = lambda: nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), *mlp([1600, 128, 10])
    )
    labels = lambda n, classes=10: torch.randint(0, classes, (n,))

    class Block(nn.Module):
        """A pre-norm block of width 128 with 4 causal heads."""

        def __init__(self):
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(128, 1e-3) for _ in range(2)])
            self.qkvo = nn.ModuleList([nn.Linear(128, 128) for _ in range(4)])
            self.up, self.down = nn.Linear(128, 512), nn.Linear(512, 128)

        def forward(self, x):
            y = self.norms[0](x)
            q, k, v = (part(y).unflatten(-1, (4, 32)).transpose(1, 2) for part in self.qkvo[:3])
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
            x = x + self.qkvo[3](y)
            return x + self.down(functional.gelu(self.up(self.norms[1](x))))

    class Transformer(nn.Module):
        """Two blocks; logits of a row for each character."""

        def __init__(self):
            super().__init__()
            self.characters, self.places = nn.Embedding(96, 128), nn.Parameter(normal(64, 128) * 0.05)
            self.rest = nn.Sequential(Block(), Block(), nn.LayerNorm(128, 1e-3), nn.Linear(128, 96))

        def forward(self, ids):
            return self.rest(self.characters(ids) + self.places).flatten(0, 1)

    functional = nn.functional
    n = times or 1
    norm_of = lambda width: (lambda x, s, b: functional.layer_norm(x, (width,), s, b, 1e-3))
    cases = {
        "matmul_nn_512": lambda: kernel(torch.matmul, normal(512, 512), normal(512, 512)),
        "matmul_nn_1024": lambda: kernel(torch.matmul, normal(1024, 1024), normal(1024, 1024)),
        "gelu_fma_4m": lambda: kernel(lambda a, b, c: functional.gelu(a * b + c), *(normal(1 << 22) for _ in range(3))),
        "sum_4m": lambda: kernel(torch.sum, normal(1 << 22)),
        "softmax_1024": lambda: kernel(lambda x: torch.softmax(x, -1), normal(1024, 1024)),
        "layernorm_1024": lambda: kernel(norm_of(1024), normal(1024, 1024), normal(1024), normal(1024)),
        "step_seed": lambda: step(nn.Linear(32, 1), functional.mse_loss, normal(32 * n, 32), normal(32 * n, 1)),
        "step_mlp": lambda: step(mlp(MLP), functional.cross_entropy, normal(128 * n, 784), labels(128 * n)),
        "step_cnn": lambda: step(cnn(), functional.cross_entropy, normal(64 * n, 1, 28, 28), labels(64 * n)),
        "step_tfm": lambda: step(Transformer(), functional.cross_entropy, labels(1024 * n, 96).reshape(-1, 64), labels(1024 * n, 96)),
    }
    if large:
        for size in [2048, 4096, 8192]:
            cases[f"matmul_nn_{size}"] = lambda size=size: kernel(torch.matmul, normal(size, size), normal(size, size))
        cases["gelu_fma_16m"] = lambda: kernel(lambda a, b, c: functional.gelu(a * b + c), *(normal(1 << 24) for _ in range(3)))
        cases["sum_16m"] = lambda: kernel(torch.sum, normal(1 << 24))
        cases["softmax_4096"] = lambda: kernel(lambda x: torch.softmax(x, -1), normal(4096, 4096))
        cases["layernorm_4096"] = lambda: kernel(norm_of(4096), normal(4096, 4096), normal(4096), normal(4096))
    for name, make in cases.items():
        if chosen(name):
            measure(named(name, times), make(), wait, seconds)


def named(case, times):
    return f"{case}_x{times}" if times and case.startswith("step_") else case


def absent(package):
    print(f"{package} is not installed for {sys.executable}: skipped", file=sys.stderr)
    return 3


def main():
    words = sys.argv[1:]
    seconds = float(words.pop(words.index("--seconds") + 1)) if "--seconds" in words else 1.0
    times = int(words.pop(words.index("--times") + 1)) if "--times" in words else None
    cuda, tf32, large = ("--" + word in words for word in ("cuda", "tf32", "large"))
    words = [word for word in words if not word.startswith("--")]
    if not words or words[0] not in ("jax", "torch", "torch-compile"):
        sys.exit(__doc__)
    chosen = lambda name: not words[1:] or any(part in name for part in words[1:])
    if words[0] == "jax":
        with_jax(chosen, cuda, tf32, seconds, large, times)
    else:
        with_torch(chosen, cuda, tf32, seconds, large, times, words[0] == "torch-compile")


if __name__ == "__main__":
    main()

"""A local training step of recurrent and attention models, plain Flax and restructured forms.

Forms of a model take turns in one process. Seconds are per client and local step; `cpu_s` counts
the time of all threads, so that it says something on a machine where others compute as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import records

MODELS = ("gru", "lstm", "optimized-lstm", "encoder")


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.parser("sequence_models", __doc__)
    whole = records.at_least
    parser.add_argument("--model", choices=(*MODELS, "all"), default="all")
    parser.add_argument(
        "--lanes", type=whole(1), nargs="+", default=[1, 8], help="clients side by side"
    )
    parser.add_argument("--batch", type=whole(1), default=32, help="examples of a minibatch")
    parser.add_argument("--hidden", type=whole(4), default=64, help="width; a multiple of 4")
    parser.add_argument("--features", type=whole(1), default=64, help="of a visit")
    parser.add_argument("--visits", type=whole(2), default=48, help="length of a sequence")
    parser.add_argument("--steps", type=whole(1), default=12, help="local steps of a call")
    parser.add_argument("--repeat", type=whole(2), default=5, help="calls of every form")
    return parser


def gru_forms(hidden: int) -> dict[str, Any]:
    """Flax's GRU, and the same with its products taken apart; all take Flax's parameters."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    from jax import lax

    def gates(x, a, bias):
        """Of input projections `x` and recurrent ones `a` `[..., 3 * hidden]`."""
        r = jax.nn.sigmoid(x[..., :hidden] + a[..., :hidden])
        z = jax.nn.sigmoid(x[..., hidden : 2 * hidden] + a[..., hidden : 2 * hidden])
        q = a[..., 2 * hidden :] + bias[None]
        return r, z, q, jnp.tanh(x[..., 2 * hidden :] + r * q)

    def forward(weight, bias, x):
        def step(h, x):
            r, z, q, n = gates(x, h @ weight, bias)
            new = (1 - z) * n + z * h
            return new, (new, h, r, z, q, n)

        return lax.scan(step, jnp.zeros((x.shape[1], hidden)), x)[1]

    @jax.custom_jvp
    def states(weight, bias, x):
        return forward(weight, bias, x)[0]

    @states.defjvp
    def rule(primals, tangents):
        # What concerns weights and inputs stays outside of the loop, so that its transpose is one
        # product over all visits instead of one per visit that is added to a carry.
        weight, (dw, db, dx) = primals[0], tangents
        hs, before, r, z, q, n = forward(*primals)
        of_n = (1 - z) * (1 - n * n)
        of_r, of_z, of_q = of_n * q * r * (1 - r), (before - n) * z * (1 - z), of_n * r
        factors = jnp.concatenate([of_r, of_z, of_q], axis=-1)
        projected = factors * (before.reshape(-1, hidden) @ dw).reshape(factors.shape)
        u = sum(jnp.split(projected, 3, axis=-1)) + of_q * db[None, None]
        xr, xz, xn = jnp.split(dx, 3, axis=-1)
        u = u + of_r * xr + of_z * xz + of_n * xn

        def step(dh, row):
            u, z, factors = row
            dh = u + z * dh + sum(jnp.split(factors * (dh @ weight), 3, axis=-1))
            return dh, dh

        return hs, lax.scan(step, jnp.zeros_like(hs[0]), (u, z, factors))[1]

    def form(scanned):
        def apply(variables, x):
            cell = variables["params"]["cell"]
            cat = lambda names, part: jnp.concatenate([cell[n][part] for n in names], axis=-1)
            kernel, bias = cat(("ir", "iz", "in"), "kernel"), cat(("ir", "iz", "in"), "bias")
            x = jnp.swapaxes(x, 0, 1)
            flat = x.reshape(-1, x.shape[-1]) @ kernel + bias[None]
            x = flat.reshape(*x.shape[:2], 3 * hidden)
            hs = scanned(cat(("hr", "hz", "hn"), "kernel"), cell["hn"]["bias"], x)
            return jnp.swapaxes(hs, 0, 1)

        return apply

    flax = nn.RNN(nn.GRUCell(hidden))
    return {
        "flax": flax,
        "flax-unrolled-4": nn.RNN(nn.GRUCell(hidden), unroll=4),
        "products-before-the-scan": form(lambda *args: forward(*args)[0]),
        "weight-gradient-after-the-scan": form(states),
    }


def encoder_forms(hidden: int) -> dict[str, Any]:
    """A transformer encoder of two layers with 4 heads, and with flattened dense layers."""
    import flax.linen as nn

    from fedjax_med_kernels.dense import dense_product

    class Encoder(nn.Module):
        product: Any = None

        @nn.compact
        def __call__(self, x):
            dense = lambda n: nn.Dense(n, dot_general=self.product)
            x = dense(hidden)(x)
            for _ in range(2):
                attention = nn.MultiHeadDotProductAttention(
                    4, qkv_dot_general=self.product, out_dot_general=self.product
                )
                x = x + attention(nn.LayerNorm()(x))
                x = x + dense(hidden)(nn.relu(dense(4 * hidden)(nn.LayerNorm()(x))))
            return nn.LayerNorm()(x)

    return {"flax": Encoder(), "dense-product": Encoder(dense_product)}


def forms(model: str, hidden: int) -> dict[str, Any]:
    """Modules or functions `(variables, x) -> [batch, visits, hidden]`, Flax's own first."""
    import flax.linen as nn

    if model == "gru":
        return gru_forms(hidden)
    if model == "encoder":
        return encoder_forms(hidden)
    cell = {"lstm": nn.LSTMCell, "optimized-lstm": nn.OptimizedLSTMCell}[model]
    return {"flax": nn.RNN(cell(hidden)), "flax-unrolled-4": nn.RNN(cell(hidden), unroll=4)}


def compile_steps(apply: Callable, lanes: int, steps: int, arguments: tuple) -> tuple[Any, float]:
    """`steps` local steps of all lanes in one compiled call, and the seconds it took to compile."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def loss(params, x, y):
        logits = apply(params[0], x)[:, -1] @ params[1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1))

    def step(params, x, y):
        grads = jax.grad(loss)(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)

    over_lanes = jax.vmap(step) if lanes > 1 else step

    def run(params, x, y):
        return lax.fori_loop(0, steps, lambda _, p: over_lanes(p, x, y), params)

    start = time.perf_counter()
    compiled = jax.jit(run).lower(*arguments).compile()
    return compiled, time.perf_counter() - start


def measure(model: str, lanes: int, a: Any) -> list[dict[str, Any]]:
    """One record per form, after checking that all forms train the same parameters."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    keys = jax.random.split(jax.random.key(0), 4)
    shape = (lanes, a.batch, a.visits, a.features) if lanes > 1 else (a.batch, a.visits, a.features)
    x = jax.random.normal(keys[0], shape)
    y = jax.random.randint(keys[1], shape[:-2], 0, 2)
    candidates = forms(model, a.hidden)
    applies = {name: getattr(form, "apply", form) for name, form in candidates.items()}

    def init(key):
        variables = candidates["flax"].init(key, jnp.zeros((1, *shape[-2:])))
        return variables, jax.random.normal(keys[3], (a.hidden, 2)) / a.hidden**0.5

    params = jax.vmap(init)(jax.random.split(keys[2], lanes)) if lanes > 1 else init(keys[2])
    compiled, compile_s, trained = {}, {}, {}
    for name, apply in applies.items():
        compiled[name], compile_s[name] = compile_steps(apply, lanes, a.steps, (params, x, y))
        trained[name] = compiled[name](params, x, y)
        jax.tree.map(
            lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-3, atol=1e-4),
            trained[name],
            trained["flax"],
        )
    wall, cpu = ({name: [] for name in applies} for _ in range(2))
    for _ in range(a.repeat):
        for name in applies:
            start, start_cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled[name](params, x, y))
            wall[name].append((time.perf_counter() - start) / (a.steps * lanes))
            cpu[name].append((time.process_time() - start_cpu) / (a.steps * lanes))
    plain = records.quartiles(wall["flax"])[1]
    found = []
    for name in applies:
        q1, median, q3 = records.quartiles(wall[name])
        shapes = {"batch": a.batch, "visits": a.visits, "features": a.features, "hidden": a.hidden}
        found.append(
            {
                "benchmark": "sequence_models",
                "model": model,
                "form": name,
                "lanes": lanes,
                **shapes,
                "median_s": median,
                "q1_s": q1,
                "q3_s": q3,
                "cpu_s": min(cpu[name]),
                "compile_s": compile_s[name],
                "speed_over_flax": plain / median,
                "cpu_speed_over_flax": min(cpu["flax"]) / min(cpu[name]),
                "temporary_mb": compiled[name].memory_analysis().temp_size_in_bytes / 1e6,
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.hidden % 4:
        parser.error(f"--hidden must be a multiple of 4, got {a.hidden}")
    output = records.Output(a.json, parser)
    common = {
        **records.environment(),
        "command": records.shown_command("sequence_models", arguments),
    }
    for model in MODELS if a.model == "all" else (a.model,):
        for lanes in a.lanes:
            for record in measure(model, lanes, a):
                output.write({**record, **common})


if __name__ == "__main__":
    main()

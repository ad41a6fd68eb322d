"""A small transformer whose tokens are the columns of a table.

References:
  Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021, section 3.3
  and figure 2. https://arxiv.org/abs/2106.11959
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.adapters import Model, from_function
from fedjax_med.models.columns import Columns, category_parts, check_columns, numeric_parts

_EPSILON = 1e-5  # of layer normalisation
_glorot = jax.nn.initializers.glorot_uniform()


def feature_tokens(
    columns: Columns,
    *,
    dim: int = 16,
    depth: int = 2,
    heads: int = 2,
    num_outputs: int = 1,
) -> Model:
    """FT-Transformer: a token per column, attention between them, outputs from a token of its own.

        token = value * weight + bias        of a numeric column
        token = indicators @ table + bias    of a column of categories
        token = missing + bias               where the value is missing

    Each of `depth` blocks adds attention of `heads` heads, then a ReGLU network of `4 / 3 * dim`
    hidden numbers, both on normalised tokens (but for the first attention, as in the paper).
    Departures: no dropout, and the vectors of missing values. Nothing depends on the order of the
    columns. Numbers should be standardised. Outputs and gradients are finite whatever is missing.

    Args:
      columns: from `columns_of(dataset.feature_names)`.
      dim: numbers of a token.
      depth: blocks.
      heads: of the attention; a divisor of `dim`.
      num_outputs: outputs `[batch, num_outputs]`.

    Raises:
      ValueError: if `dim`, `depth` or `heads` is below 1, `heads` does not divide `dim`, or on
        `init`, if `columns` are not those of `x`.
    """
    for name, value in (("dim", dim), ("depth", depth), ("heads", heads)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
    if dim % heads:
        raise ValueError(f"heads must divide dim, got heads={heads} and dim={dim}.")
    inner = max(1, 4 * dim // 3)

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        check_columns(columns, x.shape[-1])
        dtype, bound = x.dtype, 1 / math.sqrt(dim)
        keys = iter(jax.random.split(key, 6 + len(columns.categories) + 6 * depth))

        def vectors(count: int) -> jax.Array:
            return jax.random.uniform(next(keys), (count, dim), dtype, -bound, bound)

        def block(first: bool) -> PyTree:
            own = {
                name: _glorot(next(keys), (dim, dim), dtype)
                for name in ("query", "key", "value", "out")
            }
            own["up"] = _glorot(next(keys), (dim, 2 * inner), dtype)
            own["down"] = _glorot(next(keys), (inner, dim), dtype)
            biases = {f"{n}_bias": jnp.zeros(w.shape[1], dtype) for n, w in own.items()}
            norms = {"feed_norm": _norm(dim, dtype)}
            if not first:
                norms["attention_norm"] = _norm(dim, dtype)
            return own | biases | norms

        tokens = len(columns.numeric) + len(columns.categories)
        return {
            "numeric": vectors(len(columns.numeric)),
            "categories": {name: vectors(len(at)) for name, at in columns.categories},
            "token_bias": vectors(tokens),
            "missing": vectors(tokens),
            "cls": vectors(1)[0],
            "blocks": [block(i == 0) for i in range(depth)],
            "head": {
                "norm": _norm(dim, dtype),
                "kernel": _glorot(next(keys), (dim, num_outputs), dtype),
                "bias": jnp.zeros(num_outputs, dtype),
            },
        }

    def tokens_of(params: PyTree, x: jax.Array) -> jax.Array:
        values, missing = numeric_parts(columns, x)
        tokens = [values[:, :, None] * params["numeric"][None]]
        absent = [missing]
        blocks = zip(columns.categories, category_parts(columns, x), strict=True)
        for (name, _), (indicators, gone) in blocks:
            tokens.append((indicators @ params["categories"][name])[:, None])
            absent.append(gone[:, None])
        known, gone = jnp.concatenate(tokens, axis=1), jnp.concatenate(absent, axis=1)
        tokens = jnp.where(gone[:, :, None], params["missing"][None], known)
        tokens += params["token_bias"][None]
        cls = jnp.broadcast_to(params["cls"][None, None], (x.shape[0], 1, dim))
        return jnp.concatenate([cls, tokens.astype(cls.dtype)], axis=1)

    def attention(block: PyTree, tokens: jax.Array) -> jax.Array:
        def of(name: str) -> jax.Array:
            return _affine(block, name, tokens).reshape(*tokens.shape[:2], heads, dim // heads)

        scores = jnp.einsum("bqhd,bkhd->bhqk", of("query"), of("key")) / math.sqrt(dim // heads)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), of("value"))
        return _affine(block, "out", mixed.reshape(tokens.shape))

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        tokens = tokens_of(params, x)
        for number, block in enumerate(params["blocks"]):
            normal = _normalised(block["attention_norm"], tokens) if number else tokens
            tokens += attention(block, normal)
            value, gate = jnp.split(
                _affine(block, "up", _normalised(block["feed_norm"], tokens)), 2, axis=-1
            )
            tokens += _affine(block, "down", value * jax.nn.relu(gate))
        head = params["head"]
        summary = jax.nn.relu(_normalised(head["norm"], tokens[:, :1]))[:, 0]
        return summary @ head["kernel"] + head["bias"][None]

    return from_function(init, apply)


def _norm(dim: int, dtype: jnp.dtype) -> PyTree:
    return {"scale": jnp.ones(dim, dtype), "bias": jnp.zeros(dim, dtype)}


def _normalised(norm: PyTree, tokens: jax.Array) -> jax.Array:
    mean = jnp.mean(tokens, axis=-1, keepdims=True)
    variance = jnp.var(tokens, axis=-1, keepdims=True)
    normal = (tokens - mean) * jax.lax.rsqrt(variance + _EPSILON)
    return normal * norm["scale"][None, None] + norm["bias"][None, None]


def _affine(block: PyTree, name: str, tokens: jax.Array) -> jax.Array:
    return tokens @ block[name] + block[f"{name}_bias"][None, None]

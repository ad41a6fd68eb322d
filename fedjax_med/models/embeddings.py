"""A network for tables as they are: embeddings of categories, a mask for what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.adapters import Model, from_function
from fedjax_med.models.columns import Columns, category_parts, check_columns, numeric_parts
from fedjax_med.models.tabular import mlp, relu_network


def tabular_network(
    columns: Columns,
    hidden: Sequence[int] = (32, 16),
    *,
    embedding_size: int = 4,
    num_outputs: int = 1,
) -> Model:
    """A ReLU network on numeric values, on which of them are missing, and on embedded categories.

    Of `x` `[batch, features]`, in which NaN is missing, the network is given for each numeric
    column the value (0 if missing) and a 1 if it is missing, and for each column of categories

        embedding = indicators @ table        a vector of its own if missing

    so that a category that has no indicator (the first one, where it is left out) is 0. Numbers
    should be standardised; indicators may be. Outputs and gradients are finite whatever is missing.

    Args:
      columns: from `columns_of(dataset.feature_names)`.
      hidden: widths of the hidden layers; none is a linear model.
      embedding_size: numbers of an embedding.
      num_outputs: outputs `[batch, num_outputs]`.

    Raises:
      ValueError: if `embedding_size` is below 1, or on `init`, if `columns` are not those of `x`.
    """
    if embedding_size < 1:
        raise ValueError(f"embedding_size must be at least 1, got {embedding_size!r}.")
    network = mlp(hidden, num_outputs)

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        check_columns(columns, x.shape[-1])
        # Of unit length, as one standardised number has about.
        draw = jax.nn.initializers.normal(1 / math.sqrt(embedding_size))
        own, *keys = jax.random.split(key, 1 + 2 * len(columns.categories))
        embeddings = {
            name: {
                "table": draw(keys[2 * i], (len(at), embedding_size), x.dtype),
                "missing": draw(keys[2 * i + 1], (embedding_size,), x.dtype),
            }
            for i, (name, at) in enumerate(columns.categories)
        }
        width = 2 * len(columns.numeric) + embedding_size * len(columns.categories)
        layers = network.init(own, jnp.zeros((1, width), x.dtype)).params
        return {"embeddings": embeddings, "layers": layers}

    def embed(params: PyTree, x: jax.Array) -> jax.Array:
        values, missing = numeric_parts(columns, x)
        parts = [values, missing.astype(x.dtype)]
        blocks = zip(columns.categories, category_parts(columns, x), strict=True)
        for (name, _), (indicators, absent) in blocks:
            own = params["embeddings"][name]
            embedded = indicators @ own["table"]
            parts.append(jnp.where(absent[:, None], own["missing"][None], embedded))
        return jnp.concatenate(parts, axis=1)

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        return relu_network(params["layers"], embed(params, x))

    return from_function(init, apply)

"""Matrix factorisation whose rows stay with the client: they are solved for, never stored.

A patient's factors are a ridge regression of the responses that are known on the shared factors of
the drugs. So a new patient is no different from an old one (fold in), nothing about a patient leaves
the hospital, and the engine trains what is shared by any algorithm.

References:
  Singhal et al., "Federated Reconstruction: Partially Local Federated Learning", NeurIPS 2021.
  https://arxiv.org/abs/2102.03448
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.adapters import Model, from_function


def response_factorisation(rank: int, *, ridge: float = 1.0) -> Model:
    """Low rank matrix of responses, with the factors of a row in closed form.

        outputs[i, j] = bias[j] + z[i] . columns[j]
        z[i] = argmin_z  sum over known j of (x[i, j] - bias[j] - z . columns[j])**2 + ridge |z|**2

    Inputs are rows `x` `[batch, items]` on one scale for all items (see `tasks.drug_scale`), NaN where
    not known; outputs `[batch, items]` on the same. A row of which nothing is known gets `bias`.
    Parameters: `columns` `[items, rank]`, normal with variance `1 / rank`, and `bias` `[items]`, zeros.

    Args:
      rank: factors of a row and of an item.
      ridge: how strongly the factors of a row are held at 0; keeps the equations solvable.

    Raises:
      ValueError: if `rank` is below 1, or `ridge` not positive.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank!r}.")
    if not ridge > 0:
        raise ValueError(f"ridge must be positive, got {ridge!r}.")

    def init(key: jax.Array, x: jax.Array) -> PyTree:
        items = x.shape[-1]
        columns = jax.random.normal(key, (items, rank), x.dtype) / jnp.sqrt(float(rank))
        return {"columns": columns.astype(x.dtype), "bias": jnp.zeros(items, x.dtype)}

    def apply(params: PyTree, x: jax.Array) -> jax.Array:
        z = fold_in(params, x, ridge)
        return params["bias"][None] + z @ params["columns"].T

    return from_function(init, apply)


def fold_in(params: PyTree, x: jax.Array, ridge: float) -> jax.Array:
    """Factors `[batch, rank]` of rows `x` `[batch, items]`, NaN where not known.

    Args:
      params: `columns` `[items, rank]` and `bias` `[items]`.
      x: what is known.
      ridge: positive.
    """
    columns, bias = params["columns"], params["bias"]
    known = ~jnp.isnan(x)
    # NaN is replaced before it meets a parameter, or gradients would be NaN as well.
    residual = jnp.where(known, jnp.where(known, x, 0) - bias[None], 0)
    weighted = jnp.where(known[:, :, None], columns[None], 0)
    gram = jnp.einsum("njk,jl->nkl", weighted, columns)
    gram = gram + ridge * jnp.eye(columns.shape[1], dtype=x.dtype)[None]
    right = jnp.einsum("nj,jk->nk", residual, columns)
    return cho_solve(cho_factor(gram), right[:, :, None])[:, :, 0]

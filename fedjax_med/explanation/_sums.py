"""What a hospital sends for the coefficients of a model: sums over its patients."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from fedjax_med.engine import Batch, Variables
from fedjax_med.engine.contracts import Loss


class Sums(NamedTuple):
    """Sums over patients in float64, of one hospital or of all, for `p` parameters.

    Attributes:
      count: `[]`, patients.
      loss: `[]`.
      gradient: `[p]`, of the loss.
      hessian: `[p, p]`, of the loss.
      squares: `[p, p]`, outer products of the gradients of single patients.
      columns: `[features]`, squares of the columns.
    """

    count: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    squares: np.ndarray
    columns: np.ndarray


def hospital_sums(loss: Loss, variables: Variables, examples: Any, batch_size: int) -> Sums:
    """What a hospital sends: sums over its patients."""
    num = len(examples["x"])
    with jax.enable_x64(True):
        variables = jax.tree.map(_float64, variables)
        p = sum(np.size(x) for x in jax.tree.leaves(variables.params))
        shapes = ((), (p,), (p, p), (p, p), np.shape(examples["x"])[1:])
        total = Sums(np.asarray(float(num)), *(np.zeros(shape) for shape in shapes))
        for start in range(0, num, batch_size):
            rows = np.arange(start, start + batch_size)
            batch = jax.tree.map(lambda x: _float64(x[np.minimum(rows, num - 1)]), examples)  # noqa: B023
            part = _sums(loss, variables, batch, jnp.asarray(rows < num))
            total = Sums(
                total.count, *(a + np.asarray(b) for a, b in zip(total[1:], part, strict=True))
            )
    return total


def _float64(x: Any) -> jax.Array:
    x = np.asarray(x)
    return jnp.asarray(x.astype(np.float64) if x.dtype.kind == "f" else x)


@partial(jax.jit, static_argnames="loss")
def _sums(
    loss: Loss, variables: Variables, examples: Any, mask: jax.Array
) -> tuple[jax.Array, ...]:
    flat, unravel = ravel_pytree(variables.params)
    batch = Batch(examples, mask, mask.sum().astype(flat.dtype), jax.random.key(0))

    def losses(flat: jax.Array) -> jax.Array:
        values, _ = loss(Variables(unravel(flat), variables.state), batch)
        return jnp.where(mask, values, 0)

    def total(flat: jax.Array) -> jax.Array:
        return losses(flat).sum()

    scores = jax.jacfwd(losses)(flat)  # [batch, p]: parameters are fewer than patients
    columns = jnp.where(mask[:, None], examples["x"], 0) ** 2
    bend = jax.hessian(total)(flat)
    return total(flat), scores.sum(0), bend, scores.T @ scores, columns.sum(0)

"""Mixed precision: compute in a narrow type, keep parameters and sums in a wide one."""

import dataclasses

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch, Loss, PyTree, Variables


def _cast(tree: PyTree, dtype: jax.typing.DTypeLike) -> PyTree:
    def cast(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)


def mixed_precision(loss: Loss, compute_dtype: jax.typing.DTypeLike = jnp.bfloat16) -> Loss:
    """`loss` with parameters and features cast to `compute_dtype` while it runs.

    Losses come back in float32, and so do gradients and model state in the types they had, so
    optimizer states, client updates and aggregates keep their precision. Only `examples["x"]`
    is cast when the examples are a dict: rounding targets and times would change the task.
    """

    def narrow_loss(variables: Variables, batch: Batch):
        examples = batch.examples
        if isinstance(examples, dict):
            examples = {**examples, "x": _cast(examples["x"], compute_dtype)}
        else:
            examples = _cast(examples, compute_dtype)
        narrow = _cast(variables, compute_dtype)
        losses, state = loss(narrow, dataclasses.replace(batch, examples=examples))
        state = jax.tree.map(lambda new, old: new.astype(old.dtype), state, variables.state)
        return losses.astype(jnp.float32), state

    return narrow_loss

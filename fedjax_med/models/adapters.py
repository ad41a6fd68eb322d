"""One interface for any model: a pure function, a Flax NNX or a Flax Linen module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch, PyTree, Variables


class Model(NamedTuple):
    """A model as pure functions.

    Attributes:
      init: `(key, x) -> Variables`, for an example input `x` `[1, ...]`; where examples have no `x`,
        for all arrays of an example.
      apply: `(variables, batch, train) -> (outputs [batch, ...], new model state)`; reads
        `batch.examples["x"]`, or what else there is.
    """

    init: Callable[[jax.Array, PyTree], Variables]
    apply: Callable[[Variables, Batch, bool], tuple[jax.Array, PyTree]]


def from_function(
    init: Callable[[jax.Array, jax.Array], PyTree],
    apply: Callable[[PyTree, jax.Array], jax.Array],
) -> Model:
    """A model without dropout or state: `init(key, x) -> params`, `apply(params, x) -> outputs`."""

    def apply_batch(variables: Variables, batch: Batch, train: bool):
        del train
        return apply(variables.params, batch.examples["x"]), variables.state

    return Model(lambda key, x: Variables(init(key, x)), apply_batch)


def from_linen(module: Any) -> Model:
    """A Flax Linen module, unchanged.

    `train=...` is passed to modules whose `__call__` has such an argument, and `batch=...`, the
    minibatch with its padding (`models.BatchNorm` needs it), to those that have that; it is None
    when variables are made. Dropout draws from the rng named "dropout"; on a mesh that splits
    minibatches each device draws its own. All collections besides "params" (batch statistics) are
    the model state.
    """
    parameters = inspect.signature(type(module).__call__).parameters

    def flags(train: bool, batch: Batch | None = None) -> dict[str, Any]:
        given = {"train": train, "batch": batch}
        return {name: value for name, value in given.items() if name in parameters}

    def init(key: jax.Array, x: PyTree) -> Variables:
        collections = dict(module.init({"params": key, "dropout": key}, x, **flags(False)))
        params = collections.pop("params", {})
        return Variables(params, collections or ())

    def apply(variables: Variables, batch: Batch, train: bool):
        collections = {"params": variables.params, **(variables.state or {})}
        x = batch.examples["x"]
        rngs = {"dropout": batch.split_key()} if train else None
        if not train or not variables.state:
            outputs = module.apply(collections, x, rngs=rngs, **flags(train, batch))
            return outputs, variables.state
        mutable = list(variables.state)
        given = flags(train, batch)
        outputs, state = module.apply(collections, x, rngs=rngs, mutable=mutable, **given)
        return outputs, dict(state)

    return Model(init, apply)


def from_nnx(create: Callable[..., Any]) -> Model:
    """A Flax NNX module; `create(rngs)` makes it, `module(x)` calls it.

    Parameters are trained, all other variables but random states are model state. Dropout
    follows `module.train()` and `module.eval()`; on a mesh that splits minibatches each device
    draws its own.
    """
    from flax import nnx

    def init(key: jax.Array, x: jax.Array) -> Variables:
        del x
        _, params, _, rest = nnx.split(create(nnx.Rngs(key)), nnx.Param, nnx.RngState, ...)
        return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(rest) or ())

    def apply(variables: Variables, batch: Batch, train: bool):
        # The module's structure costs nothing to make again: no array is computed for it.
        key = batch.split_key() if train else jax.random.key(0)
        abstract = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
        graph, params, rng, rest = nnx.split(abstract, nnx.Param, nnx.RngState, ...)
        nnx.replace_by_pure_dict(params, variables.params)
        nnx.replace_by_pure_dict(rest, variables.state or {})
        rng = _fill_rng(rng, key)
        module = nnx.merge(graph, params, rng, rest)
        module.train() if train else module.eval()
        outputs = module(batch.examples["x"])
        _, _, _, new = nnx.split(module, nnx.Param, nnx.RngState, ...)
        state = nnx.to_pure_dict(new) if train else variables.state
        return outputs, state or ()

    return Model(init, apply)


def _fill_rng(rng: Any, key: jax.Array) -> Any:
    """Random states made from the key of this local step: every stream has its own."""
    leaves, structure = jax.tree.flatten(rng)
    filled = []
    for number, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            filled.append(jax.random.fold_in(key, number))
        else:
            filled.append(jnp.zeros(leaf.shape, leaf.dtype))
    return jax.tree.unflatten(structure, filled)

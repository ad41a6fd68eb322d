"""Initial variables from a seed and the shape of the data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import PyTree, Variables
from fedjax_med.models.adapters import Model

_INIT_STREAM = 0x696E6974  # apart from the keys of rounds, which start from the same seed


def init_key(seed: int) -> jax.Array:
    """The key that a task's initial variables are drawn with."""
    return jax.random.fold_in(jax.random.key(seed), _INIT_STREAM)


def initialise(model: Model, example: PyTree) -> Callable[[int], Variables]:
    """The task's `init`: a new model from a seed.

    The model is shown `x` of one example; where examples have no `x`, all arrays of one.
    """
    shown = example.get("x", example) if isinstance(example, dict) else example

    def init(seed: int) -> Variables:
        return model.init(init_key(seed), jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), shown))

    return init

"""Initial variables from a seed and the shape of the data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import PyTree, Variables
from fedjax_med.models.adapters import Model

_INIT_STREAM = 0x696E6974  # apart from the keys of rounds, which start from the same seed


def initialise(model: Model, example: PyTree) -> Callable[[int], Variables]:
    """The task's `init`: a new model from a seed."""

    def init(seed: int) -> Variables:
        key = jax.random.fold_in(jax.random.key(seed), _INIT_STREAM)
        return model.init(key, jnp.asarray(example["x"][:1]))

    return init

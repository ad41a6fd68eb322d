"""Clipping of client updates."""

import jax
import jax.numpy as jnp
import optax

from fedjax_med.aggregation.chain import ClientTransform
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.hyperparameters import require


def clip_by_client_norm(max_norm: float | jax.Array) -> ClientTransform:
    """Scales each client's update down to an L2 norm of at most `max_norm`.

        update * min(1, max_norm / norm(update))

    The norm [units of the parameters] runs over all leaves of one client together; shapes and
    dtypes are kept. An update of norm 0 stays 0; one whose norm overflows becomes 0. Updates
    that are not finite never get here: the engine excludes their client before.

    Raises:
      ValueError: if `max_norm` is not positive. Infinity is allowed and clips nothing.

    References:
      McMahan et al., ICLR 2018, algorithm 1. https://arxiv.org/abs/1710.06963
    """
    require("max_norm", max_norm, "positive", lambda v: v > 0)

    def apply(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array):
        del state, key
        norm = optax.tree.norm(update)
        # Norm 0 divides to inf, and inf / inf would be NaN: both mean "do not clip".
        scale = jnp.where(norm > max_norm, max_norm / norm, 1)
        return jax.tree.map(lambda u: (scale * u).astype(u.dtype), update), weight, ()

    return ClientTransform(lambda update_like: (), apply)

"""Gradient inversion: the records behind a gradient or a model update.

References:
  Phong et al., IEEE TIFS 2018, https://eprint.iacr.org/2017/715 (dense layers leak their input)
  Zhu, Liu and Han, NeurIPS 2019, https://arxiv.org/abs/1906.08935 (DLG)
  Zhao, Mopuri and Bilen, 2020, https://arxiv.org/abs/2001.02610 (iDLG, labels)
  Geiping et al., NeurIPS 2020, https://arxiv.org/abs/2003.14053 (cosine matching, updates)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from fedjax_med.engine.contracts import PyTree


def invert_dense(kernel_gradient: jax.Array, bias_gradient: jax.Array) -> jax.Array:
    """The input of a dense layer with bias, from its gradient.

    Every unit j of a layer `x @ kernel + bias` has d kernel[:, j] = x d bias[j], so

        x = sum_j d bias[j] d kernel[:, j] / sum_j d bias[j]^2

    is exact for one record, for any loss and anything behind the layer. Of several records it is their
    mean, weighted by what each has in the bias: what a sum over a batch, or over hospitals, leaks.

    Args:
      kernel_gradient: `[features, units]`.
      bias_gradient: `[units]`.

    Returns:
      `[features]`; not finite where the gradient is 0, which leaks nothing.
    """
    return kernel_gradient @ bias_gradient / jnp.sum(bias_gradient**2)


def first_dense(params: PyTree) -> tuple[jax.Array, jax.Array] | None:
    """Kernel and bias of the first dense layer of a gradient like the parameters.

    It is the first pair of leaves "kernel" `[features, units]` and "bias" `[units]` in the order of the
    tree; None if there is none, as in networks that begin with convolutions.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    if not leaves:
        return None
    by_layer: dict[tuple[Any, ...], dict[str, jax.Array]] = {}
    for path, leaf in leaves:
        name = getattr(path[-1], "key", None)
        if isinstance(name, str):
            by_layer.setdefault(path[:-1], {})[name] = leaf
    first = next(iter(by_layer.values()), {})
    if set(first) != {"kernel", "bias"} or first["kernel"].ndim != 2:
        return None
    return first["kernel"], first["bias"]


def infer_label(bias_gradient: Any, num_outputs: int) -> int:
    """The label of a single record, from the gradient of the output layer's bias (iDLG).

    The gradient of the cross-entropy is probability minus one for the record's class, which alone is
    negative; of a single logit it is negative for class 1.
    """
    gradient = np.asarray(bias_gradient).reshape(num_outputs)
    return int(gradient[0] < 0) if num_outputs == 1 else int(np.argmin(gradient))


class Inversion(NamedTuple):
    """What an optimisation found.

    Attributes:
      records: like the true ones.
      distance: between what they would have sent and what was seen.
    """

    records: jax.Array
    distance: jax.Array


Matching = Literal["euclidean", "cosine"]


def invert_by_matching(
    sent_by: Callable[[jax.Array], PyTree],
    seen: PyTree,
    start: jax.Array,
    *,
    matching: Matching = "cosine",
    total_variation: float = 0.0,
    num_steps: int = 500,
    learning_rate: float = 0.1,
    low: float = -jnp.inf,
    high: float = jnp.inf,
) -> Inversion:
    """Searches the records that would have sent what was seen.

    "euclidean" is DLG: the squared distance, by L-BFGS. "cosine" is the attack of Geiping et al.:
    one minus the cosine, plus `total_variation` of images, by Adam with the signs of the gradient
    and a learning rate that falls to a tenth; it needs no guess of the update's length. The best
    records on the way are kept.

    Args:
      sent_by: `(records) -> pytree`, a gradient or an update, twice differentiable.
      seen: what the client sent, alike.
      start: `[N, ...]`, where the search begins.
      matching: what is minimised.
      total_variation: weight of the mean absolute difference of neighbouring pixels; records are
        images `[N, height, width, channels]` if it is not 0.
      num_steps: of the optimizer.
      learning_rate: of Adam.
      low: no number of a record is below.
      high: no number of a record is above.
    """

    def distance(records: jax.Array) -> jax.Array:
        made = sent_by(records)
        if matching == "euclidean":
            error = jax.tree.map(jnp.subtract, made, seen)
            found = _dot(error, error)
        else:
            lengths = jnp.sqrt(_dot(made, made) * _dot(seen, seen))
            found = 1 - _dot(made, seen) / jnp.maximum(lengths, 1e-30)
        return found + total_variation * _variation(records) if total_variation else found

    optimizer = (
        optax.lbfgs()
        if matching == "euclidean"
        else optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps, alpha=0.1))
    )

    def step(carry: Any, _: Any) -> Any:
        records, state, best = carry
        value, gradient = jax.value_and_grad(distance)(records)
        better = value < best.distance
        best = Inversion(
            jnp.where(better, records, best.records), jnp.where(better, value, best.distance)
        )
        if matching == "euclidean":
            change, state = optimizer.update(
                gradient, state, records, value=value, grad=gradient, value_fn=distance
            )
        else:
            change, state = optimizer.update(jnp.sign(gradient), state, records)
        records = jnp.clip(jnp.asarray(records + change), low, high)
        return (records, state, best), None

    @jax.jit
    def search(start: jax.Array) -> Inversion:
        worst = Inversion(start, jnp.asarray(jnp.inf, start.dtype))
        carry, _ = lax.scan(step, (start, optimizer.init(start), worst), length=num_steps)
        records, _, best = carry
        value = distance(records)
        better = value < best.distance
        return Inversion(
            jnp.where(better, records, best.records), jnp.where(better, value, best.distance)
        )

    return search(start)


def psnr(original: Any, found: Any, *, span: float) -> float:
    """Peak signal-to-noise ratio of a reconstruction, in dB; infinite where it is exact.

        10 log10(span^2 / mean squared error)

    Args:
      original: a record.
      found: its reconstruction, of the same shape; not finite counts as zeros.
      span: largest minus smallest value that there is.
    """
    original, found = np.asarray(original, np.float64), np.asarray(found, np.float64)
    error = np.mean((original - np.where(np.isfinite(found), found, 0.0)) ** 2)
    return float(10 * np.log10(span**2 / error)) if error else float("inf")


def _variation(images: jax.Array) -> jax.Array:
    """Mean absolute difference of neighbouring pixels of `[N, height, width, channels]`."""
    rows = jnp.abs(jnp.diff(images, axis=1)).mean()
    return rows + jnp.abs(jnp.diff(images, axis=2)).mean()


def _dot(a: PyTree, b: PyTree) -> Any:
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)))

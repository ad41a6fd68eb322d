"""The noised sum of clipped per-record gradients, a few records at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fedjax_med.engine.contracts import Batch, GradientResult, Loss, PyTree, Variables
from fedjax_med.privacy.clipping import wide
from fedjax_med.privacy.correlated_noise import standard_normal
from fedjax_med_kernels.clip_and_sum import clip_and_sum

_NOISE = 0x6E6F6973  # apart from what else is drawn from the key of a local step


def check_no_state(variables: Variables) -> None:
    """Raises ValueError for models with batch statistics, to which no record has a bounded share."""
    leaves = jax.tree_util.tree_leaves_with_path(variables.state)
    if leaves:
        raise ValueError(
            "Record-level privacy needs a model in which records do not meet, got one with state "
            f"{jax.tree_util.keystr(leaves[0][0])}; use group or layer normalisation."
        )


def clipped_gradient_sum(
    loss: Loss, variables: Variables, batch: Batch, clip_norm: Any, microbatch_size: int
) -> tuple[PyTree, jax.Array]:
    """Sum of the clipped gradients of a minibatch's records, and the sum of their losses.

        sum_i mask[i] * min(1, clip_norm / |g_i|) * g_i,   g_i the gradient of record i alone

    Gradients of `microbatch_size` records are held at a time. A record whose gradient is not finite
    adds nothing. Sums are float32 or wider and run over all devices that share the minibatch. A
    record's randomness (dropout) depends on its place in the minibatch, not on the microbatches.

    Args:
      loss: `(variables, batch) -> (losses [batch], state)`.
      variables: the model.
      batch: the minibatch.
      clip_norm: bound on the L2 norm of a record's gradient.
      microbatch_size: records side by side.
    """
    num_records = batch.mask.shape[0]
    size = min(microbatch_size, num_records)
    first = 0 if batch.split_axis is None else lax.axis_index(batch.split_axis) * num_records
    losses_of = batch.rewritten(loss)

    def of_record(place: jax.Array) -> tuple[jax.Array, PyTree]:
        one = dataclasses.replace(
            batch,
            examples=jax.tree.map(lambda x: x[place][None], batch.examples),
            mask=jnp.ones(1, bool),
            count=jnp.ones_like(batch.count),
            key=jax.random.fold_in(batch.key, first + place),
            split_axis=None,
            num_splits=1,
        )

        def value(params: PyTree) -> jax.Array:
            losses, _ = losses_of(Variables(params, variables.state), one)
            return jnp.sum(losses)

        return jax.value_and_grad(value)(variables.params)

    def add(total: tuple[PyTree, jax.Array], start: jax.Array):
        place = start + jnp.arange(size)
        inside = place < num_records
        place = jnp.where(inside, place, 0)
        counted = batch.mask[place] & inside
        losses, grads = jax.vmap(of_record)(place)
        weight = counted.astype(jnp.result_type(float))
        # Row by row: the other implementation chooses by `cond`, of which lanes would run both.
        clipped = clip_and_sum(grads, weight, clip_norm, implementation="scan").total
        total = (
            jax.tree.map(lambda t, c: t + c.astype(t.dtype), total[0], clipped),
            total[1] + (jnp.sum(jnp.where(counted, losses, 0)).astype(total[1].dtype)),
        )
        return total, None

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, wide(p.dtype)), variables.params)
    start = (zeros, jnp.zeros((), jnp.result_type(float)))
    total, _ = lax.scan(add, start, jnp.arange(0, num_records, size))
    return batch.sum_over_splits(total)


def noised_gradient(
    loss: Loss,
    variables: Variables,
    batch: Batch,
    *,
    clip_norm: Any,
    noise_multiplier: Any,
    divisor: Any,
    microbatch_size: int,
) -> GradientResult:
    """The gradient of DP-SGD: clipped, summed, noised, divided by a number that is public.

    The noise has standard deviation `noise_multiplier * clip_norm` on the sum and is drawn from the
    key of the local step, the same on all devices that share the minibatch.

    References:
      Abadi et al., CCS 2016, algorithm 1. https://arxiv.org/abs/1607.00133
    """
    check_no_state(variables)
    total, loss_sum = clipped_gradient_sum(loss, variables, batch, clip_norm, microbatch_size)
    noise = standard_normal(jax.random.fold_in(batch.key, _NOISE), total)
    scale = jnp.asarray(noise_multiplier * clip_norm)
    grads = jax.tree.map(
        lambda t, z, p: ((t + scale.astype(t.dtype) * z) / divisor).astype(p.dtype),
        total,
        noise,
        variables.params,
    )
    return GradientResult(grads, loss_sum / batch.count, variables.state)

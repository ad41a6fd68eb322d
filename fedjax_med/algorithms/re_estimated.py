"""Batch statistics estimated again: everyone's own, under the weights that all learned together.

What an average of running statistics describes is no hospital's images, and lags behind the weights
it is used with. A pass over a hospital's own training examples mends both, and needs no label. Where
hospitals differ in their labels it harms: the mix of labels is normalised away (`docs/imaging.md`).

References:
  Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016 (AdaBN).
  https://arxiv.org/abs/1603.04779
  Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, section 3 (PreciseBN).
  https://arxiv.org/abs/2105.07576
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.algorithms.fine_tuning import with_adaptation
from fedjax_med.engine.contracts import (
    Adaptation,
    Adapted,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    FederatedAlgorithm,
    Loss,
    PyTree,
    Variables,
)
from fedjax_med.engine.local_work import LocalWork


class _Estimate(NamedTuple):
    """The model, the sum of statistics over the examples seen, and their number."""

    variables: Variables
    total: PyTree
    seen: jax.Array


def re_estimated(
    algorithm: FederatedAlgorithm, loss: Loss, *, local_work: LocalWork | None = None
) -> FederatedAlgorithm:
    """`algorithm`, whose clients are judged with batch statistics of their own training examples.

    Before every evaluation each client computes the statistics of its minibatches with the model
    that `algorithm` would judge it by, and takes their mean, weighted by examples, in place of the
    running ones. Training is what it is without. A hospital that did not train together is treated
    the same, so it needs unlabelled images only.

    The statistics of a minibatch are found from two running ones: whatever a model calls them, they
    go to `momentum * old + (1 - momentum) * new`, so their values from 0 and from 1 give both. XLA
    computes the model once for the two. As in PreciseBN, variances are means of those of minibatches.

    Args:
      algorithm: any algorithm without an adaptation of its own.
      loss: of the task that is trained, such as `task.loss`. A model that augments its examples does
        so here; the loss of the same model without augmentation gives the statistics of images as
        they are.
      local_work: what to look at, such as `epochs(1, batch_size=64)`; that of the run if None.

    Raises:
      ValueError: if `algorithm` has an adaptation already; when traced, if the model has no state or
        one that is not floating.
    """

    def begin(server: PyTree, client: Client) -> _Estimate:
        variables = algorithm.personal(server, client.state.own)
        leaves = jax.tree.leaves(variables.state)
        if not leaves or not all(jnp.issubdtype(x.dtype, jnp.floating) for x in leaves):
            found = sorted({x.dtype.name for x in leaves})
            raise ValueError(
                f"the model must have floating statistics to estimate again, got {found or 'none'}."
            )
        zeros = jax.tree.map(jnp.zeros_like, variables.state)
        return _Estimate(variables, zeros, jnp.zeros((), jnp.result_type(float)))

    def step(server: PyTree, carry: _Estimate, batch: Batch) -> _Estimate:
        del server
        loss_of = batch.rewritten(loss)

        def moved_from(value: float) -> PyTree:
            state = jax.tree.map(lambda x: jnp.full_like(x, value), carry.variables.state)
            _, state = loss_of(carry.variables._replace(state=state), batch)
            share = jnp.sum(batch.mask) / batch.count  # 1, unless devices share the minibatch
            return batch.sum_over_splits(jax.tree.map(lambda x: (x * share).astype(x.dtype), state))

        def add(total: jax.Array, zero: jax.Array, one: jax.Array) -> jax.Array:
            statistic = zero / (1 - (one - zero))
            return total + batch.count.astype(total.dtype) * statistic

        total = jax.tree.map(add, carry.total, moved_from(0.0), moved_from(1.0))
        return _Estimate(carry.variables, total, carry.seen + batch.count)

    def end(server: PyTree, carry: _Estimate, client: Client) -> ClientResult:
        del server
        made = jax.tree.map(lambda x: (x / carry.seen).astype(x.dtype), carry.total)
        return ClientResult((), carry.seen, client.state._replace(made=made))

    def personal(server: PyTree, adapted: Adapted) -> Variables:
        return algorithm.personal(server, adapted.own)._replace(state=adapted.made)

    program = ClientProgram(begin, step, end)
    room = lambda variables: variables.state
    return with_adaptation(algorithm, Adaptation(program, local_work, room), personal)

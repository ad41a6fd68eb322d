"""Federated Newton-Raphson: generalised linear models and Cox models, fitted in a few rounds.

References:
  Wu, Jiang, Kim and Ohno-Machado, "Grid Binary LOgistic REgression (GLORE): building shared models
  without sharing data", Journal of the American Medical Informatics Association 19, 2012.
  https://doi.org/10.1136/amiajnl-2012-000862
  Lu et al., "WebDISCO: a web service for distributed Cox model learning without patient-level data
  sharing", Journal of the American Medical Informatics Association 22, 2015.
  https://doi.org/10.1093/jamia/ocv083
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import special

from fedjax_med.aggregation import weighted_mean
from fedjax_med.algorithms.local_training import Weighting, by_examples
from fedjax_med.algorithms.statistics import keep_if_nobody, statistics_program, totals
from fedjax_med.engine.contracts import (
    Aggregator,
    Batch,
    Cohort,
    FederatedAlgorithm,
    Loss,
    PyTree,
    RoundResult,
    RunClients,
    Variables,
)
from fedjax_med.engine.hyperparameters import require

# Units of rounding below which an entry of a diagonal is taken for 0.
_ROUNDING = 10


class Derivatives(NamedTuple):
    """Of the summed losses of examples, by the flattened parameters.

    Attributes:
      gradient: `[params]`.
      hessian: `[params, params]`.
    """

    gradient: jax.Array
    hessian: jax.Array


class ServerState(NamedTuple):
    """All that passes from one round to the next.

    Attributes:
      variables: the model.
      information: `[params, params]`, the Hessian of the losses summed over all examples, at the
        model before the last step; the observed information where the loss is a negative
        log-likelihood. Without the penalty, 0 before the first round.
      aggregator_state: state of the aggregator.
    """

    variables: Variables
    information: jax.Array
    aggregator_state: PyTree


def newton(
    loss: Loss,
    *,
    ridge: float | jax.Array = 0.0,
    penalise_bias: bool = False,
    aggregator: Aggregator | None = None,
    weighting: Weighting = by_examples,
) -> FederatedAlgorithm:
    """Builds Newton-Raphson for few parameters and a convex loss.

    Clients send gradient g and Hessian H of their summed losses at the server's model; with D the
    diagonal of the penalised parameters, the server takes the step

        params <- params - (H + ridge D)^-1 (g + ridge D params)

    which minimises the sum of the losses over all patients plus `ridge / 2 |params|^2`. With
    everybody in every round and `epochs(1, ...)` this is Newton's method on the pooled patients,
    whoever holds which, and 5 to 8 rounds are enough. For `tasks.cox` every hospital has to be in
    one minibatch, `epochs(1, batch_size=largest hospital)`: the likelihood stratified by hospital.

    There is no line search: steps from 0 of logistic and Cox models converge unless a class can be
    told apart by a line, where a ridge keeps coefficients finite. Directions of which the
    examples say nothing (a constant column, the bias of a Cox model) stay as they are. In float32,
    columns should be standardised: next to a column of thousands, one of thousandths counts as
    nothing.

    A client's message is a sum over its patients with `params^2` entries: of a hospital with few
    patients it says much. `information` of the final state is what standard errors are made of, see
    `wald_intervals`, and `explanation.coefficients` for tables in natural units.

    Args:
      loss: of the task, `task.loss`.
      ridge: penalty on the sum of the losses, 0 or more.
      penalise_bias: whether arrays called "bias" are penalised as well.
      aggregator: of the clients' `Derivatives` per example; `weighted_mean()` if None.
      weighting: `by_examples`, or a function of the client.

    Raises:
      ValueError: if `ridge` is negative.
    """
    require("ridge", ridge, "0 or more", lambda r: r >= 0)
    aggregator = aggregator or weighted_mean()

    def empty(shared: Variables) -> Derivatives:
        flat, _ = ravel_pytree(shared.params)
        return Derivatives(jnp.zeros_like(flat), jnp.zeros((flat.size, flat.size), flat.dtype))

    def summed(shared: Variables, batch: Batch) -> tuple[Derivatives, jax.Array]:
        flat, unravel = ravel_pytree(shared.params)
        losses_of = batch.rewritten(loss)

        def total(flat: jax.Array) -> tuple[jax.Array, jax.Array]:
            losses, _ = losses_of(Variables(unravel(flat), shared.state), batch)
            return jnp.sum(jnp.where(batch.mask, losses, 0)), losses

        def slope(flat: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            gradient, losses = jax.grad(total, has_aux=True)(flat)
            return gradient, (gradient, losses)

        # The matrix products of few columns cost nothing; digits of a Hessian are worth having.
        with jax.default_matmul_precision("highest"):
            hessian, (gradient, losses) = jax.jacfwd(slope, has_aux=True)(flat)
        return Derivatives(gradient, hessian), losses

    program = statistics_program(empty, summed, "train_loss", weighting)

    def step(params: PyTree, sums: Derivatives) -> PyTree:
        flat, unravel = ravel_pytree(params)
        penalty = ridge * ravel_pytree(_penalised(params, penalise_bias))[0]
        penalty = jnp.asarray(penalty, flat.dtype)
        slope = sums.gradient + penalty * flat
        return unravel(flat - _solved(sums.hessian + jnp.diag(penalty), slope))

    def init(variables: Variables) -> ServerState:
        variables = jax.tree.map(lambda v: jnp.array(v, copy=True), variables)
        nothing = empty(variables)
        return ServerState(variables, nothing.hessian, aggregator.init(nothing))

    def run_round(state: ServerState, cohort: Cohort, run_clients: RunClients) -> RoundResult:
        old = state.variables
        result = run_clients(program, old, cohort, aggregator, state.aggregator_state)
        sums = totals(result)
        with jax.default_matmul_precision("highest"):
            params = keep_if_nobody(result, step(old.params, sums), old.params)
        information = keep_if_nobody(result, sums.hessian, state.information)
        new = ServerState(Variables(params, old.state), information, result.aggregator_state)
        return RoundResult(new, result.client_states, result.metrics)

    return FederatedAlgorithm(init, run_round)


class Wald(NamedTuple):
    """Coefficients with their intervals, float64 `[K]`; NaN where not determined.

    Attributes:
      value: the coefficient.
      se: standard error.
      low: lower end of the interval.
      high: upper end.
      z: `value / se`.
      p_value: of the hypothesis that the coefficient is 0, two-sided.
    """

    value: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    z: np.ndarray
    p_value: np.ndarray


def wald_intervals(
    coefficients: PyTree, information: np.ndarray | jax.Array, level: float = 0.95
) -> Wald:
    """Wald intervals from the information matrix: `value +- z sqrt(diag(information^-1))`.

    Args:
      coefficients: parameters in the order of `information`, or a pytree of them as
        `run.variables.params`.
      information: `[K, K]`, as `run.state.information`. A coefficient whose entry of the
        diagonal is 0 up to rounding (the bias of a Cox model) has no interval.
      level: of confidence, between 0 and 1.

    Raises:
      ValueError: if `level` or a shape does not fit, or the rest of `information` is not positive
        definite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level!r}.")
    leaves = [np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(coefficients)]
    value, matrix = np.concatenate(leaves), np.asarray(information, np.float64)
    if matrix.shape != (value.size, value.size):
        raise ValueError(
            f"information must have shape {[value.size, value.size]}, one row for each "
            f"coefficient, got {list(matrix.shape)}."
        )
    diagonal = np.diag(matrix)
    # Rounding of float32, in which the information usually was summed.
    known = diagonal > _ROUNDING * np.finfo(np.float32).eps * diagonal.max(initial=0)
    part = matrix[np.ix_(known, known)]
    try:
        lower = np.linalg.cholesky(part)
    except np.linalg.LinAlgError:
        raise ValueError(
            "information must be positive definite, which it is not: the patients do not determine "
            "all coefficients."
        ) from None
    inverse = np.linalg.solve(lower, np.eye(len(part)))
    se = np.full(value.size, np.nan)
    se[known] = np.sqrt((inverse**2).sum(axis=0))
    z = value / se
    half = special.ndtri(0.5 + level / 2) * se
    return Wald(value, se, value - half, value + half, z, 2 * special.ndtr(-np.abs(z)))


def _penalised(params: PyTree, penalise_bias: bool) -> PyTree:
    """1 where a parameter is penalised and 0 where not, like `params`."""

    def share(path: tuple, leaf: jax.Array) -> jax.Array:
        last = path[-1] if path else None
        is_bias = getattr(last, "key", getattr(last, "name", None)) == "bias"
        return jnp.full_like(leaf, penalise_bias or not is_bias)

    return jax.tree_util.tree_map_with_path(share, params)


def _solved(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """`matrix^-1 vector` of a symmetric matrix, with no step in directions it is 0 in."""
    diagonal = jnp.diag(matrix)
    said = diagonal > _ROUNDING * jnp.finfo(matrix.dtype).eps * jnp.max(diagonal)
    # Scaled to ones on the diagonal, so that the units of columns do not decide what is singular.
    unit = jnp.sqrt(jnp.where(said, diagonal, 1))
    both = said[:, None] & said[None]
    scaled = jnp.where(both, matrix / unit[:, None] / unit[None], 0)
    values, vectors = jnp.linalg.eigh((scaled + scaled.T) / 2)
    smallest = _ROUNDING * vector.size * jnp.finfo(matrix.dtype).eps
    known = values > smallest * jnp.maximum(values[-1], 1)
    inverse = jnp.where(known, 1 / jnp.where(known, values, 1), 0)
    return vectors @ (inverse * (vectors.T @ (vector / unit))) / unit

"""What a hospital computes for ComBat, in two passes over its rows; see `harmonisation`."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Array, Batch, Client, ClientProgram, ClientResult
from fedjax_med.preprocessing.statistics import Moments, merged_moments


class Question(NamedTuple):
    """What the server sends.

    Attributes:
      columns: int `[columns]`, positions in `x` of the columns to harmonise.
      covariates: int `[covariates]`, those of the covariates.
      fill: `[covariates]`, what a missing covariate becomes.
      center: `[columns]`, subtracted from the values.
      slope: `[covariates, columns]`, the effect of the centred covariates, subtracted as well.
    """

    columns: Array
    covariates: Array
    fill: Array
    center: Array
    slope: Array


class Scatter(NamedTuple):
    """What a hospital tells in the first pass, float64.

    Attributes:
      count: `[columns]`, values that are not missing.
      values: `[columns]`, sum of the values.
      covariates: `[columns, covariates]`, sum of the covariates of the rows that have the value.
      with_values: `[columns, covariates]`, their products with the values, about own means.
      among: `[columns, covariates, covariates]`, their products with each other, likewise.
    """

    count: Array
    values: Array
    covariates: Array
    with_values: Array
    among: Array


def _centred(ask: Question, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values less what was sent, where they are, and covariates about `fill`."""
    x = batch.examples["x"].astype(float)
    covariates, values = x[:, ask.covariates], x[:, ask.columns]
    covariates = jnp.where(jnp.isnan(covariates), 0, covariates - ask.fill[None])
    there = batch.mask[:, None] & ~jnp.isnan(values)
    values = values - ask.center[None] - jnp.matmul(covariates, ask.slope, precision="highest")
    return jnp.where(there, values, 0), there, covariates


def _begin_scatter(ask: Question, client: Client) -> Scatter:
    k, g = ask.slope.shape
    shapes = ((g,), (g,), (g, k), (g, k), (g, k, k))
    return Scatter(*(jnp.zeros(shape) for shape in shapes))


def _step_scatter(ask: Question, carry: Scatter, batch: Batch) -> Scatter:
    values, there, covariates = _centred(ask, batch)
    there = there.astype(float)

    def product(formula: str, *factors: jax.Array) -> jax.Array:
        return jnp.einsum(formula, *factors, precision="highest")

    seen = Scatter(
        count=jnp.sum(there, axis=0),
        values=jnp.sum(values, axis=0),
        covariates=product("ng,nk->gk", there, covariates),
        with_values=product("ng,nk->gk", values, covariates),
        among=product("ng,nk,nl->gkl", there, covariates, covariates),
    )
    return jax.tree.map(jnp.add, carry, batch.sum_over_splits(seen))


def _end_scatter(ask: Question, carry: Scatter, client: Client) -> ClientResult:
    # About the hospital's own means. Covariates and values were centred at those of all hospitals,
    # so what cancels here is no more than what hospitals differ by.
    n = jnp.maximum(carry.count, 1)
    mean = carry.covariates / n[:, None]
    own = carry._replace(
        with_values=carry.with_values - mean * carry.values[:, None],
        among=carry.among - mean[:, :, None] * carry.covariates[:, None, :],
    )
    return ClientResult(own, client.num_examples.astype(float))


SCATTER = ClientProgram(_begin_scatter, _step_scatter, _end_scatter)


def _begin_rest(ask: Question, client: Client) -> Moments:
    return jax.tree.map(jnp.zeros_like, client.state)


def _step_rest(ask: Question, carry: Moments, batch: Batch) -> Moments:
    values, there, _ = _centred(ask, batch)
    return merged_moments(carry, batch, values, there)


def _end_rest(ask: Question, carry: Moments, client: Client) -> ClientResult:
    return ClientResult((), client.num_examples.astype(float), state=carry)


REST = ClientProgram(_begin_rest, _step_rest, _end_rest)

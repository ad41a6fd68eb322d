"""Survival: Cox's proportional hazards, and hazards of intervals of time.

Examples have `time` `[N]`, in any unit, and `event` `[N]`: 1 where the event was seen, 0 where the
patient was censored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med.data import ClientArrays, DataError
from fedjax_med.data.bins import quantile_edges
from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise
from fedjax_med.tasks.partial_likelihood import Ties, comparable_pairs, cox_losses

_NAMES, _HIGHER = ("loss", "c_index"), (False, True)


def cox(model: Model, example: PyTree, *, ties: Ties = "efron") -> Task:
    """Cox's negative log partial likelihood; the model gives the log hazard.

    Risk sets are the patients of the minibatch, who are all of one hospital. With all patients of
    every hospital in one minibatch (`epochs(1, batch_size=largest hospital)`), the loss is
    therefore the likelihood **stratified by hospital**: each has a baseline hazard of its own.
    Smaller minibatches make it noisier and, as risk sets shrink, smaller.

    The terms of the patients sum to the negative log likelihood, and training takes their mean over
    all patients of a minibatch, not over its events. So the means of hospitals, weighted by their
    patients, are the stratified likelihood divided by the number of patients. Minibatches without
    events have loss and gradient 0. A minibatch split over devices has its risk sets across them.

    Metrics: `loss` [nats per patient], and `c_index`, the concordance within hospitals: comparable
    pairs are counted within the minibatches of the evaluation, which has up to 128 patients in each.
    Harrell's index over all pairs of a hospital is `evaluation.concordance.c_index`.

    Args:
      model: gives `[batch, 1]` or `[batch]` log hazards.
      example: examples like those of the data, for their shapes and dtypes.
      ties: of events at equal times. "efron" and "breslow" are the usual approximations; "order"
        takes tied patients, censored ones as well, one after the other as they lie in the
        minibatch, which is the loss of FLamby's Fed-TCGA-BRCA.

    Raises:
      ValueError: for another value of `ties`.

    References:
      Cox, Journal of the Royal Statistical Society B 34, 1972; Biometrika 62, 1975.
      Ogier du Terrail et al., FLamby, NeurIPS 2022. https://arxiv.org/abs/2210.04620
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {', '.join(get_args(Ties))}, got {ties!r}.")

    def scores_and_losses(variables: Variables, batch: Batch, train: bool):
        outputs, state = model.apply(variables, batch, train)
        # A sum of many exponentials needs more digits than half precision has.
        scores = outputs.reshape(batch.mask.shape)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        everyone, time, event, mask = _whole(batch, scores)
        losses = cox_losses(everyone, time, event, mask, ties)
        return scores, _own(batch, losses), state

    def loss(variables: Variables, batch: Batch):
        _, losses, state = scores_and_losses(variables, batch, True)
        return losses, state

    def metrics(variables: Variables, batch: Batch):
        scores, losses, _ = scores_and_losses(variables, batch, False)
        return {"loss": (losses, jnp.ones_like(losses)), "c_index": _concordance(batch, scores)}

    return Task(initialise(model, example), loss, metrics, _NAMES, _HIGHER)


def discrete_time_survival(
    model: Model, example: PyTree, *, edges: Sequence[float] | np.ndarray
) -> Task:
    """Logistic hazards of the intervals up to `edges[0]`, `(edges[0], edges[1]]`, ...

    With h the sigmoid of the model's outputs, a patient's loss is

        -sum_k log(1 - h[k]) over the intervals survived - log(h[k]) of the interval of the event

    A patient survives an interval by being followed to its end without an event; an event at an
    edge lies before it. Someone censored inside an interval says nothing of that interval (in
    Gensheimer and Narasimhan it counts as survived from its middle on). Follow-up and events
    beyond the last edge say that all intervals were survived. Patients' losses do not depend on
    each other, so any minibatches will do, and hospitals share their hazards.

    Metrics: `loss` [nats], and `c_index` as in `cox`, where the risk is minus the sum of the
    survival probabilities at the edges.

    Args:
      model: gives `[batch, intervals]` logits.
      example: examples like those of the data, for their shapes and dtypes.
      edges: ends of the intervals, in the unit of `time`, ascending, as from `interval_edges`.

    Raises:
      ValueError: if `edges` are empty, not finite or not ascending.

    References:
      Gensheimer and Narasimhan, "A scalable discrete-time survival model for neural networks",
      PeerJ 7, 2019. https://doi.org/10.7717/peerj.6257
    """
    ends = np.asarray(edges, np.float64)
    if ends.ndim != 1 or not ends.size or not np.isfinite(ends).all() or (np.diff(ends) <= 0).any():
        raise ValueError(f"edges must be finite and ascending, at least one, got {list(edges)!r}.")

    def logits_and_losses(variables: Variables, batch: Batch, train: bool):
        logits, state = model.apply(variables, batch, train)
        if logits.shape != (*batch.mask.shape, len(ends)):
            raise ValueError(
                f"the model must give one output for each of the {len(ends)} intervals, got shape "
                f"{list(logits.shape)}."
            )
        time, event = batch.examples["time"][:, None], batch.examples["event"][:, None] > 0
        upper = jnp.asarray(ends, time.dtype)[None]
        after = time > upper  # than the end of the interval
        survived = after | (~event & (time == upper))
        before_it = jnp.concatenate([jnp.ones_like(after[:, :1]), after[:, :-1]], axis=1)
        died = event & ~after & before_it
        losses = jnp.where(survived, jax.nn.softplus(logits), 0)
        losses += jnp.where(died, jax.nn.softplus(-logits), 0)
        return logits, jnp.sum(losses, axis=1), state

    def loss(variables: Variables, batch: Batch):
        _, losses, state = logits_and_losses(variables, batch, True)
        return losses, state

    def metrics(variables: Variables, batch: Batch):
        logits, losses, _ = logits_and_losses(variables, batch, False)
        survival = jnp.exp(-jnp.cumsum(jax.nn.softplus(logits), axis=1))
        pairs = _concordance(batch, -jnp.sum(survival, axis=1))
        return {"loss": (losses, jnp.ones_like(losses)), "c_index": pairs}

    return Task(initialise(model, example), loss, metrics, _NAMES, _HIGHER)


def survival_curve(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[N, intervals]` of no event up to the end of each interval, float64.

    Args:
      logits: `[N, intervals]`, of the hazards; see `discrete_time_survival`.
    """
    return np.exp(-np.cumsum(np.logaddexp(0, np.asarray(logits, np.float64)), axis=-1))


def interval_edges(train: ClientArrays, num: int, *, resolution: int | None = 64) -> np.ndarray:
    """Ends of up to `num` intervals with about as many events in each, and as many beyond the last.

    They are quantiles of the times of events, from what hospitals tell of them; see
    `data.bins.quantile_edges`. An edge at the last event would be one patient's time.

    Args:
      train: examples with `time` and `event`.
      num: how many; fewer if there are fewer different times.
      resolution: quantiles that a hospital tells.

    Raises:
      DataError: if `num` is below 1, leaves are missing, or no two events differ in time.
    """
    if num < 1:
        raise DataError(f"num must be at least 1, got {num!r}.")
    examples = train.examples
    if not isinstance(examples, dict) or not {"time", "event"} <= set(examples):
        raise DataError("examples must be a dict with the leaves 'time' and 'event'.")
    times = np.where(examples["event"] > 0, examples["time"], np.nan)
    if len(np.unique(times[~np.isnan(times)])) < 2:
        raise DataError("events must be seen at two different times at least to divide time.")
    of_events = ClientArrays({"time": times[:, None]}, train.sizes)
    edges = quantile_edges(of_events, num + 1, resolution=resolution, leaf="time")[0]
    return edges[np.isfinite(edges)]


def _whole(batch: Batch, scores: jax.Array) -> tuple[jax.Array, ...]:
    """Scores, times, events and mask of the whole minibatch, on every device that shares it."""
    parts = (scores, batch.examples["time"], batch.examples["event"], batch.mask)
    if batch.split_axis is None:
        return parts
    # Its transpose brings each device the part of the gradient that others have of its scores.
    return tuple(lax.all_gather(part, batch.split_axis, tiled=True) for part in parts)


def _own(batch: Batch, values: jax.Array) -> jax.Array:
    """This device's share of values of the whole minibatch."""
    if batch.split_axis is None:
        return values
    size = batch.mask.shape[0]
    return lax.dynamic_slice_in_dim(values, lax.axis_index(batch.split_axis) * size, size)


def _concordance(batch: Batch, risk: jax.Array) -> tuple[jax.Array, jax.Array]:
    concordant, comparable = comparable_pairs(*_whole(batch, risk))
    return _own(batch, concordant), _own(batch, comparable)

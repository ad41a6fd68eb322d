"""Forecasts: one number for every horizon, or quantiles of what may come."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise
from fedjax_med.tasks.kinds import LEVELS

__all__ = ["LEVELS", "point_forecast", "quantile_forecast"]


def point_forecast(model: Model, example: PyTree) -> Task:
    """Half the squared error, mean over horizons; metrics `mse` and `mae`, likewise.

    Args:
      model: gives `[batch, horizons]` outputs.
      example: examples like those of the data: `y` is float32 `[N, horizons]`, or `[N]` for one.

    Raises:
      ValueError: when traced, if the model gives another number of outputs.
    """

    def errors(variables: Variables, batch: Batch, train: bool):
        outputs, state = model.apply(variables, batch, train)
        target = _targets(batch)
        return _shaped(outputs, target, 1)[..., 0] - target, state

    def loss(variables: Variables, batch: Batch):
        error, state = errors(variables, batch, True)
        return 0.5 * jnp.mean(error**2, axis=1), state

    def metrics(variables: Variables, batch: Batch):
        error = errors(variables, batch, False)[0]
        ones = jnp.ones_like(error[:, 0])
        return {
            "mse": (jnp.mean(error**2, axis=1), ones),
            "mae": (jnp.mean(jnp.abs(error), axis=1), ones),
        }

    return Task(initialise(model, example), loss, metrics, ("mse", "mae"), (False, False))


def quantile_forecast(model: Model, example: PyTree, *, levels: Sequence[float] = LEVELS) -> Task:
    """Quantiles of every horizon, by the pinball loss, mean over horizons and levels.

        loss(q, y) = max(level * (y - q), (level - 1) * (y - q))

    which is least in expectation where `q` is the quantile. Outputs of different levels may cross;
    `evaluation.forecasting.uncrossed` sorts them. Metrics: `pinball`; `mae` of the level next to one
    half; `coverage`, the share of `y` between the outermost levels.

    Args:
      model: gives `[batch, horizons * levels]` outputs, those of a horizon side by side.
      example: examples like those of the data: `y` is float32 `[N, horizons]`, or `[N]` for one.
      levels: rising, between 0 and 1.

    Raises:
      ValueError: if `levels` do not rise between 0 and 1; when traced, if the model gives
        another number of outputs.

    References:
      Koenker and Bassett, Econometrica 46, 1978.
    """
    levels = tuple(levels)
    if not levels or not (0 < levels[0] and levels[-1] < 1) or list(levels) != sorted(set(levels)):
        raise ValueError(f"levels must rise between 0 and 1, got {levels!r}.")
    middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))

    def errors(variables: Variables, batch: Batch, train: bool):
        """`y - q`, `[batch, horizons, levels]`."""
        outputs, state = model.apply(variables, batch, train)
        target = _targets(batch)
        return target[..., None] - _shaped(outputs, target, len(levels)), state

    def pinball(error: jax.Array) -> jax.Array:
        level = jnp.asarray(levels, error.dtype)[None, None]
        return jnp.mean(jnp.maximum(level * error, (level - 1) * error), axis=(1, 2))

    def loss(variables: Variables, batch: Batch):
        error, state = errors(variables, batch, True)
        return pinball(error), state

    def metrics(variables: Variables, batch: Batch):
        error = errors(variables, batch, False)[0]
        ones = jnp.ones_like(error[:, 0, 0])
        inside = (error[..., 0] >= 0) & (error[..., -1] <= 0)
        return {
            "pinball": (pinball(error), ones),
            "mae": (jnp.mean(jnp.abs(error[..., middle]), axis=1), ones),
            "coverage": (jnp.mean(inside.astype(error.dtype), axis=1), ones),
        }

    return Task(
        initialise(model, example),
        loss,
        metrics,
        ("pinball", "mae", "coverage"),
        (False, False, True),
    )


def _targets(batch: Batch) -> jax.Array:
    y = batch.examples["y"]
    return y[:, None] if y.ndim == 1 else y


def _shaped(outputs: jax.Array, target: jax.Array, num_levels: int) -> jax.Array:
    """Outputs `[batch, horizons, levels]`."""
    shape = (*target.shape, num_levels)
    if outputs.size != target.size * num_levels:
        raise ValueError(
            f"the model must give {target.shape[1]} horizons times {num_levels} outputs, got shape "
            f"{list(outputs.shape)}."
        )
    return outputs.reshape(shape)

"""The plan of local privacy: every client noises its own update."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, Cohort, GradientFn, PyTree, RunClients
from fedjax_med.engine.task import Task
from fedjax_med.privacy.clipping import clip_to_norm
from fedjax_med.privacy.correlated_noise import standard_normal
from fedjax_med.privacy.guard import ServerGuard
from fedjax_med.privacy.plan import Plan

if TYPE_CHECKING:
    from fedjax_med.privacy.configuration import LocalLevel


@dataclasses.dataclass(frozen=True)
class LocalPlan(Plan):
    """`LocalLevel` for one population; see `Plan` and `private`."""

    settings: LocalLevel
    population: int

    @functools.cached_property
    def aggregator(self) -> Aggregator:
        """The plain mean of noised updates; who takes part is no secret of the clients."""

        def init(update_like: PyTree) -> PyTree:
            return jax.tree.map(lambda x: jnp.zeros((0,), x.dtype), update_like)

        def encode(update: PyTree, weight: jax.Array, state: PyTree, key: jax.Array):
            del state
            clipped, _ = clip_to_norm(update, self.settings.clip_norm)
            scale = jnp.asarray(self.noise_multiplier * self.settings.clip_norm)
            noised = jax.tree.map(
                lambda u, z: u + scale.astype(u.dtype) * z, clipped, standard_normal(key, clipped)
            )
            # One whose update was not finite sends noise alone, and counts like any other.
            return noised, jnp.ones_like(weight)

        def decode(reduced: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
            total, count = reduced
            divisor = jnp.maximum(count, 1)
            mean = jax.tree.map(
                lambda t, like: (t / divisor.astype(t.dtype)).astype(like.dtype), total, state
            )
            return mean, state

        return Aggregator(init, encode, decode, "sum")

    def parts(self, task: Task) -> tuple[GradientFn, Aggregator]:
        """What an algorithm is built from: the task's gradient, the mean of noised updates."""
        return task.gradient, self.aggregator

    def guard(self, run_clients: RunClients, cohort: Cohort) -> ServerGuard:
        """`run_clients` of one round."""
        return ServerGuard(run_clients, self.aggregator, self.aggregator, cohort)

    @property
    def mechanism(self) -> str:
        """How, in a sentence."""
        return (
            f"Every {self.unit} clips its own update to L2 norm {float(self.settings.clip_norm):g} "
            f"and adds Gaussian noise of {self.ledger.noise_multiplier:.4g} clip bounds before it "
            "sends it; nobody has to be trusted, and taking part in every round is accounted for."
        )

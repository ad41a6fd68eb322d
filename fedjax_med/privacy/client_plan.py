"""The plan of client-level privacy, and the aggregator in which it happens."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Aggregator, Cohort, GradientFn, PyTree, RunClients
from fedjax_med.engine.task import Task
from fedjax_med.privacy.clipping import clip_to_norm, wide
from fedjax_med.privacy.correlated_noise import Noise, banded, independent, tree
from fedjax_med.privacy.factorisation import optimal_banded
from fedjax_med.privacy.guard import ServerGuard, noise_key, only_by_private
from fedjax_med.privacy.plan import Plan
from fedjax_med.privacy.sampling import CyclicPoisson, Passes, expected_size

if TYPE_CHECKING:
    from fedjax_med.privacy.configuration import ClientLevel

_COUNT = 0x636E74  # keeps the noise of the count apart from that of the sum


class PrivateSumState(NamedTuple):
    """What the aggregator remembers between rounds.

    Attributes:
      bound: `[]`, the present clip bound.
      noise: state of the noise.
      like: the dtypes of the updates, as arrays without elements.
    """

    bound: jax.Array
    noise: PyTree
    like: PyTree


@dataclasses.dataclass(frozen=True)
class ClientPlan(Plan):
    """`ClientLevel` for one population; see `Plan` and `private`."""

    settings: ClientLevel
    population: int

    @property
    def may_go_on(self) -> bool:
        """Banded noise was made for so many rounds."""
        return self.settings.correlation is None

    @property
    def expected_cohort(self) -> float:
        """Clients of a round on average: the denominator of the mean."""
        return expected_size(self.settings.sampling, self.population)

    @functools.cached_property
    def noise(self) -> Noise:
        """The stream of noise, with standard deviation 1."""
        from fedjax_med.privacy.configuration import Banded, Tree

        match self.settings.correlation:
            case Tree():
                assert isinstance(self.settings.sampling, Passes)
                return tree(self.settings.sampling.rounds_per_pass(self.population))
            case Banded(bands):
                return banded(optimal_banded(min(bands, self.rounds), self.rounds))
            case _:
                return independent()

    @property
    def noise_of_sum(self) -> Any:
        """Standard deviation of the noise of the sum over the clip bound."""
        noise, clipping = self.noise_multiplier, self.settings.clipping
        if clipping is not None:
            noise = clipping.noise_of_sum(noise, self.expected_cohort)
        if self.settings.simulated_cohort is not None:
            # The mean gets the noise it would get in the large cohort.
            noise = noise * self.expected_cohort / self.settings.simulated_cohort.cohort
        return noise

    @functools.cached_property
    def aggregator(self) -> Aggregator:
        """The private mean of updates; it noises only inside `private`, which has the key."""

        def init(update_like: PyTree) -> PrivateSumState:
            for path, leaf in jax.tree_util.tree_leaves_with_path(update_like):
                if not jnp.issubdtype(leaf.dtype, jnp.floating):
                    raise TypeError(
                        f"update{jax.tree_util.keystr(path)} must be floating to be noised, got "
                        f"{leaf.dtype}."
                    )
            self.noise_of_sum  # noqa: B018 (raises if it cannot be split between sum and count)
            bound = jnp.asarray(self.settings.clip_norm, jnp.result_type(float))
            like = jax.tree.map(lambda x: jnp.zeros((0,), x.dtype), update_like)
            return PrivateSumState(bound, self.noise.init(update_like), like)

        def encode(update: PyTree, weight: jax.Array, state: PrivateSumState, key: jax.Array):
            del key
            clipped, norm = clip_to_norm(update, state.bound)
            # Centred, so that a client moves the count by a half; one that is excluded, by nothing.
            below = jnp.where(norm <= state.bound, 0.5, -0.5).astype(weight.dtype)
            return clipped, jnp.where(weight > 0, below, 0)

        return Aggregator(init, encode, only_by_private, "sum")

    def keyed_aggregator(self, key: jax.Array, round_index: jax.Array) -> Aggregator:
        """The aggregator of one round; `key` is the run's."""

        def decode(reduced: PyTree, state: PrivateSumState) -> tuple[PyTree, PrivateSumState]:
            total, count = reduced
            noise, noise_state = self.noise.draw(key, round_index, total, state.noise)
            scale = self.noise_of_sum * state.bound
            size = self.expected_cohort

            def released(t: jax.Array, z: jax.Array, like: jax.Array) -> jax.Array:
                return ((t + scale.astype(t.dtype) * z) / size).astype(like.dtype)

            mean = jax.tree.map(released, total, noise, state.like)
            bound, clipping = state.bound, self.settings.clipping
            if clipping is not None:
                count_key = jax.random.fold_in(jax.random.fold_in(key, _COUNT), round_index)
                z = jax.random.normal(count_key, (), wide(count.dtype))
                noised = count + clipping.noise_of_count(size) * z
                bound = clipping.next_bound(bound, noised / size + 0.5).astype(bound.dtype)
            return mean, PrivateSumState(bound, noise_state, state.like)

        return self.aggregator._replace(decode=decode)

    def parts(self, task: Task) -> tuple[GradientFn, Aggregator]:
        """What an algorithm is built from: the task's gradient, the private mean."""
        return task.gradient, self.aggregator

    def guard(self, run_clients: RunClients, cohort: Cohort) -> ServerGuard:
        """`run_clients` of one round."""
        key = noise_key(cohort.seed)
        return ServerGuard(
            run_clients, self.aggregator, self.keyed_aggregator(key, cohort.round_index), cohort
        )

    @property
    def mechanism(self) -> str:
        """How, in a sentence."""
        s = self.settings
        bound = f"clipped to L2 norm {float(s.clip_norm):g}"
        if s.clipping is not None:
            bound += f" at first and then to the noised {s.clipping.quantile:g} quantile of norms"
        kind = "Gaussian" if s.correlation is None else f"{type(s.correlation).__name__} Gaussian"
        return (
            f"The server, which is trusted, adds {kind} noise of {self.ledger.noise_multiplier:.4g} "
            f"clip bounds to the sum of the updates, each {bound} and all of them counting alike; "
            f"cohorts are drawn by {_described(s.sampling)}."
        )

    def statement(self, rounds: int) -> str:
        """What is protected after so many rounds, against whom and how, in plain words."""
        large = self.settings.simulated_cohort
        if large is None:
            return super().statement(rounds)
        return (
            "NOT PRIVATE, a simulation: the epsilon below is that of Poisson cohorts of "
            f"{large.cohort:g} of {large.population} clients; here the noise was scaled down to the "
            f"{self.expected_cohort:g} clients that were simulated. {super().statement(rounds)}"
        )


def _described(sampler: Any) -> str:
    text = repr(sampler)
    if isinstance(sampler, CyclicPoisson):
        text += f" (nobody twice within {sampler.period} rounds)"
    return text

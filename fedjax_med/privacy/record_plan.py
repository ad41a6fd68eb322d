"""The plan of record-level privacy: DP-SGD inside each hospital, and the guard around it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.aggregation import weighted_mean
from fedjax_med.engine.cohorts import CohortSampler
from fedjax_med.engine.contracts import (
    Aggregator,
    Batch,
    Client,
    ClientProgram,
    ClientResult,
    Cohort,
    GradientFn,
    GradientResult,
    Loss,
    PyTree,
    RunClients,
    Variables,
)
from fedjax_med.engine.local_work import PoissonSteps, poisson_steps
from fedjax_med.engine.task import Task
from fedjax_med.privacy.guard import PrivacyError, Sealed, ServerGuard
from fedjax_med.privacy.plan import Plan
from fedjax_med.privacy.record_gradient import noised_gradient
from fedjax_med.privacy.releases import PoissonRelease, Relation, Release, TruncatedRelease

if TYPE_CHECKING:
    from fedjax_med.privacy.configuration import RecordLevel


def release_of_hospital(settings: RecordLevel, num_records: int) -> Release:
    """What a local step of a hospital with so many training records gives away."""
    rate = min(1.0, settings.batch_size / num_records)
    if settings.most >= num_records:  # nothing is ever truncated
        return PoissonRelease(rate, Relation.ZERO_OUT)
    return TruncatedRelease(num_records, rate, settings.most)


class _Wrapped(NamedTuple):
    """The algorithm's carry, and what the guard keeps beside it."""

    own: PyTree
    divisor: jax.Array  # [], expected records of a step of this hospital
    seen: jax.Array  # [2], losses and records


@dataclasses.dataclass
class _StepGuard:
    """One trace of a local step: the private gradient has to be taken exactly once."""

    calls: int = 0
    loss: Any = None


class _Examples(Sealed):
    """A minibatch, of which only the private gradient may read anything."""

    def __init__(self, batch: Batch, divisor: jax.Array, step: _StepGuard):
        super().__init__("the examples of a hospital around the private gradient", batch)
        self.divisor, self.step = divisor, step


@dataclasses.dataclass(frozen=True)
class RecordPlan(Plan):
    """`RecordLevel` for hospitals of given sizes; see `Plan` and `private`."""

    settings: RecordLevel
    population: tuple[int, ...]

    @property
    def sampler(self) -> CohortSampler | None:
        """Any: hospitals are accounted as if they took part in every round."""
        return None

    @property
    def local_work(self) -> PoissonSteps:
        """The only local work that the accounting holds for."""
        s = self.settings
        return poisson_steps(s.steps, expected=s.batch_size, batch_size=s.most)

    @property
    def unit(self) -> str:
        """A record."""
        return "record"

    def check_sizes(self, sizes: np.ndarray) -> None:
        """Raises ValueError if hospitals have other numbers of training records than planned."""
        if tuple(int(n) for n in sizes) != self.population:
            raise ValueError(
                f"The privacy plan is for hospitals with {list(self.population)} training records, "
                f"but the dataset has {[int(n) for n in sizes]}."
            )

    def parts(self, task: Task) -> tuple[GradientFn, Aggregator]:
        """What an algorithm is built from: the private gradient, the weighted mean."""
        return self.gradient(task.loss), weighted_mean()

    def gradient(self, loss: Loss) -> GradientFn:
        """The private gradient of `loss`, for the local steps of `local_work`."""
        s = self.settings

        def gradient_fn(variables: Variables, batch: Batch) -> GradientResult:
            sealed, divisor = batch.examples, float(s.batch_size)
            if isinstance(sealed, _Examples):
                batch, divisor = sealed._content, sealed.divisor
            result = noised_gradient(
                loss,
                variables,
                batch,
                clip_norm=s.clip_norm,
                noise_multiplier=self.noise_multiplier,
                divisor=divisor,
                microbatch_size=s.microbatch_size,
            )
            if not isinstance(sealed, _Examples):
                return result
            sealed.step.calls += 1
            sealed.step.loss = result.loss
            # The loss is no release: an algorithm that used it would exclude all its clients.
            return result._replace(loss=jnp.full_like(result.loss, jnp.nan))

        return gradient_fn

    def guard(self, run_clients: RunClients, cohort: Cohort) -> ServerGuard:
        """`run_clients` of one round."""
        return ServerGuard(run_clients, None, None, cohort, wrap=self._wrap, own_schedule=True)

    def _wrap(self, program: ClientProgram) -> ClientProgram:
        """A client program that reads examples through the private gradient, once a step."""

        def begin(shared: PyTree, client: Client) -> _Wrapped:
            dtype = jnp.result_type(float)
            divisor = jnp.minimum(client.num_examples.astype(dtype), self.settings.batch_size)
            return _Wrapped(program.begin(shared, client), divisor, jnp.zeros(2, dtype))

        def step(shared: PyTree, carry: _Wrapped, batch: Batch) -> _Wrapped:
            once = _StepGuard()
            # How many records were drawn is no more public than which: the algorithm sees the
            # expected number.
            seen_by_algorithm = dataclasses.replace(
                batch,
                examples=_Examples(batch, carry.divisor, once),
                mask=jnp.ones_like(batch.mask),
                count=carry.divisor,
            )
            own = program.step(shared, carry.own, seen_by_algorithm)
            if once.calls != 1:
                raise PrivacyError(
                    f"The algorithm takes {once.calls} gradients in a local step, but its privacy "
                    "plan accounts for one."
                )
            seen = jnp.stack([once.loss.astype(batch.count.dtype) * batch.count, batch.count])
            return _Wrapped(own, carry.divisor, carry.seen + seen)

        def end(shared: PyTree, carry: _Wrapped, client: Client) -> ClientResult:
            result = program.end(shared, carry.own, client)
            if "train_loss" not in result.metrics:
                return result
            loss = carry.seen[0] / carry.seen[1]
            return result._replace(metrics={**result.metrics, "train_loss": loss})

        return ClientProgram(begin, step, end)

    @property
    def mechanism(self) -> str:
        """How, in a sentence."""
        s = self.settings
        each = [e.value for e in self.ledger.each_after(self.rounds)]
        return (
            f"Every hospital clips the gradient of each record to L2 norm {float(s.clip_norm):g} and "
            f"adds Gaussian noise of {self.ledger.noise_multiplier:.4g} clip bounds to the sum of "
            f"each of {s.steps} local steps a round, whose records are a Poisson sample of "
            f"{s.batch_size} on average and at most {s.most}; nobody else has to be trusted. Over "
            f"the {self.rounds} planned rounds epsilon is {min(each):.4g} in the hospital that "
            f"spends least and {max(each):.4g} in the one that spends most."
        )

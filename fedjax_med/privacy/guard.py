"""`private`: an algorithm under a plan, and the guards that keep it to what is accounted.

An algorithm is a function like any other and could read around its aggregator. So inside `private`
it is given `run_clients` under guard: the plan's aggregator and no other, one pass over the cohort,
and everything else that clients hand back sealed, to be passed on but not looked into. What is
broken raises while the round is traced, before anything is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax

from fedjax_med.engine.contracts import (
    Aggregator,
    ClientProgram,
    Cohort,
    CohortResult,
    FederatedAlgorithm,
    GradientFn,
    PyTree,
    RoundResult,
    RunClients,
)
from fedjax_med.engine.task import Task

_NOISE = 0x6E6F6973  # keeps noise apart from the other uses of the seed


def noise_key(seed: jax.Array) -> jax.Array:
    """Root of the noise of a run."""
    return jax.random.fold_in(jax.random.key(seed), _NOISE)


class PrivacyError(ValueError):
    """An algorithm does something that its privacy plan does not account for."""


def only_by_private(reduced: PyTree, state: PyTree) -> Any:
    """The `decode` of a private aggregator outside of `private`, where there is no noise key."""
    del reduced, state
    raise PrivacyError("The aggregator of a privacy plan works only inside `private(...)`.")


class Sealed:
    """Something that an algorithm may pass on, but not look into."""

    def __init__(self, what: str, content: Any):
        """Seals `content`; `what` names it in errors."""
        self._what, self._content = what, content

    def __getattr__(self, name: str) -> Any:
        """Refuses."""
        raise PrivacyError(
            f"The algorithm looks into {self._what}, which its privacy plan does not cover; build "
            "another algorithm, or another plan."
        )

    def __getitem__(self, key: Any) -> Any:
        """Refuses."""
        return self.__getattr__(str(key))

    def __iter__(self) -> Any:
        """Refuses."""
        return self.__getattr__("iter")


def unseal(sealed: Any, what: str) -> Any:
    """What was sealed.

    Raises:
      PrivacyError: if it is something else.
    """
    if not isinstance(sealed, Sealed):
        raise PrivacyError(f"The algorithm replaces {what}, which its privacy plan does not cover.")
    return sealed._content


@dataclasses.dataclass
class ServerGuard:
    """`run_clients` for a round in which only the aggregate may be seen.

    Attributes:
      run_clients: the engine's.
      expected: the aggregator that the algorithm has to use, None for any.
      used: the one that is used in its place.
      cohort: of the round, with the clients' states.
      wrap: what is done to the client program.
      calls: passes over the cohort.
    """

    run_clients: RunClients
    expected: Aggregator | None
    used: Aggregator | None
    cohort: Cohort
    wrap: Callable[[ClientProgram], ClientProgram] = lambda program: program
    own_schedule: bool = False
    calls: int = 0

    def sealed_cohort(self) -> Cohort:
        """The cohort as the algorithm sees it."""
        return self.cohort._replace(states=Sealed("the clients' states", self.cohort.states))

    def __call__(
        self,
        program: ClientProgram,
        shared: PyTree,
        cohort: Cohort,
        aggregator: Aggregator,
        aggregator_state: PyTree = (),
        *,
        local_work: Any = None,
    ) -> CohortResult:
        """See `RunClients`."""
        self.calls += 1
        if self.calls > 1:
            raise PrivacyError(
                "The algorithm goes over the cohort more than once a round, and its privacy plan "
                "accounts for one release a round; its accounting is not known."
            )
        if self.own_schedule and local_work is not None:
            raise PrivacyError(
                f"The algorithm has its own local work {local_work!r}, but the privacy plan accounts "
                "for the one it makes."
            )
        if self.expected is not None:
            if aggregator is not self.expected:
                raise PrivacyError(
                    "The algorithm aggregates by something else than the aggregator of its privacy "
                    "plan, or wraps it; pass `aggregator` on as it is."
                )
            assert self.used is not None
            aggregator = self.used
        result = self.run_clients(
            self.wrap(program),
            shared,
            cohort._replace(states=unseal(cohort.states, "the clients' states")),
            aggregator,
            aggregator_state,
            local_work=local_work,
        )
        return result._replace(
            client_states=Sealed("the clients' states", result.client_states),
            metrics=Sealed("the clients' metrics", result.metrics),
        )

    def finish(self, result: RoundResult) -> RoundResult:
        """The round's result with nothing sealed."""
        return result._replace(
            client_states=unseal(result.client_states, "the clients' states"),
            metrics=unseal(result.metrics, "the clients' metrics"),
        )


@runtime_checkable
class PrivacyPlan(Protocol):
    """What `private` needs of a plan, besides what the engine asks of a `Guarantee`."""

    @property
    def num_clients(self) -> int:
        """Clients of the population."""
        ...

    def parts(self, task: Task) -> tuple[GradientFn, Aggregator]:
        """The gradient and the aggregator that an algorithm is built from."""
        ...

    def guard(self, run_clients: RunClients, cohort: Cohort) -> ServerGuard:
        """`run_clients` of one round."""
        ...


def private(
    build: Callable[[GradientFn, Aggregator], FederatedAlgorithm], plan: PrivacyPlan, *, task: Task
) -> FederatedAlgorithm:
    """A federated algorithm whose every round is accounted for by `plan`.

        plan = ClientLevel(clip_norm=1.0, epsilon=2.0, delta=1e-3, sampling=poisson(0.1)).plan(
            population=500, rounds=100
        )
        algorithm = private(
            lambda gradient, aggregator: fed_avg(gradient, optax.sgd(0.1), aggregator=aggregator),
            plan,
            task=task,
        )
        run = simulate(algorithm, dataset, task=task, rounds=100, local_work=epochs(1, batch_size=8))

    `simulate` then takes the sampler (and the local work, at record level) from the plan and refuses
    others, ends the run before the round that would exceed the budget, and adds `epsilon` and
    `epsilon_rdp` after every round to the metrics.

    Args:
      build: `(gradient_fn, aggregator) -> FederatedAlgorithm`; has to use what it is given.
      plan: from `ClientLevel.plan`, `LocalLevel.plan` or `RecordLevel.plan`.
      task: what is learned.

    Raises:
      PrivacyError: while a round is traced, if the algorithm uses another aggregator, goes over the
        cohort twice, looks at what clients hand back besides the aggregate, or, at record level,
        reads examples around the private gradient.
    """
    algorithm = build(*plan.parts(task))

    def run_round(state: PyTree, cohort: Cohort, run_clients: RunClients) -> RoundResult:
        guard = plan.guard(run_clients, cohort)
        return guard.finish(algorithm.run_round(state, guard.sealed_cohort(), guard))

    return algorithm._replace(run_round=run_round, num_clients=plan.num_clients, privacy=plan)

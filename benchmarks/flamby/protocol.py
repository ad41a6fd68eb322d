"""Trains every strategy, pooled and alone, with all seeds, on both kinds of inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.flamby import strategies
from benchmarks.flamby.settings import INPUTS, Setting
from fedjax_med import algorithms
from fedjax_med import engine as fm

NEWTON_ROUNDS = 5  # as many as FLamby gives the smaller of the two budgets
RIDGE = 1.0  # on the summed losses; scikit-learn's default for logistic regression
Params = dict[str, np.ndarray]


class Trained(NamedTuple):
    """The models of a row of the table.

    Attributes:
      method: name of the row.
      inputs: one of `INPUTS`.
      params: `[seeds, features, 1]` and `[seeds, 1]`.
    """

    method: str
    inputs: str
    params: Params


def train_all(setting: Setting, seeds: int) -> list[Trained]:
    """Every row of the table, in six compiled calls."""
    return [
        *_averaging(setting, seeds),
        *_scaffold(setting, seeds),
        *_cyclic(setting, seeds),
        *_never_handed_on(setting, seeds),
        *_pooled_and_alone(setting, seeds),
        _newton(setting),
    ]


def _simulate(setting: Setting, algorithm: Any, experiments: fm.Experiments, **options: Any):
    return fm.simulate(
        algorithm,
        setting.both(),
        task=setting.task,
        rounds=setting.rounds,
        local_work=setting.local_work,
        experiments=experiments,
        lanes=1,  # training takes seconds at most; what counts is how long it takes to compile
        **options,
    )


def _experiments(setting: Setting, seeds: int, names: list[str]) -> fm.Experiments:
    """Both inputs x strategies x seeds, the seeds varying fastest."""
    cells = [(how, name) for how in INPUTS for name in names for _ in range(seeds)]
    rates = [setting.rates[name] for _, name in cells]
    hyperparameters: dict[str, np.ndarray] = {}
    if all(name in strategies.RULES for name in names):
        hyperparameters = {
            "rule": np.array([strategies.RULES[name] for _, name in cells], np.float64),
            "client": np.array([r.client for r in rates]),
            "server": np.array([r.server for r in rates]),
            "mu": np.array([r.mu for r in rates]),
        }
    return fm.Experiments(
        tuple(range(seeds)) * (len(INPUTS) * len(names)),
        hyperparameters,
        tuple(setting.members(how) for how, _ in cells),
    )


def _unfold(params: Params, seeds: int, names: list[str]) -> list[Trained]:
    shaped = {
        k: np.reshape(v, (len(INPUTS), len(names), seeds, *v.shape[1:])) for k, v in params.items()
    }
    return [
        Trained(name, how, {k: v[i, j] for k, v in shaped.items()})
        for i, how in enumerate(INPUTS)
        for j, name in enumerate(names)
    ]


def _averaging(setting: Setting, seeds: int) -> list[Trained]:
    names = list(strategies.RULES)

    def build(rule: jax.Array, client: jax.Array, server: jax.Array, mu: jax.Array):
        return strategies.averaging(setting.task, rule, client, server, mu)

    run = _simulate(setting, build, _experiments(setting, seeds, names))
    return _unfold(run.variables.params, seeds, names)


def _scaffold(setting: Setting, seeds: int) -> list[Trained]:
    rate = setting.rates["SCAFFOLD"].client
    algorithm = strategies.scaffold(setting.task, rate, len(setting.centres))
    run = _simulate(setting, algorithm, _experiments(setting, seeds, ["SCAFFOLD"]))
    return _unfold(run.variables.params, seeds, ["SCAFFOLD"])


def _cyclic(setting: Setting, seeds: int) -> list[Trained]:
    sgd = optax.sgd(setting.rates["Cyclic"].client)
    algorithm = algorithms.cyclic_weight_transfer(setting.task.gradient, sgd)
    run = _simulate(
        setting, algorithm, _experiments(setting, seeds, ["Cyclic"]), cohort=fm.cohorts.cyclic()
    )
    return _unfold(run.variables.params, seeds, ["Cyclic"])


def _never_handed_on(setting: Setting, seeds: int) -> list[Trained]:
    """The first centre's model, of centres that take turns but keep their models to themselves."""
    sgd = optax.sgd(setting.rates["Cyclic"].client)
    algorithm = algorithms.local_only(setting.task.gradient, sgd)
    name = "Cyclic, not handed on"
    run = _simulate(
        setting, algorithm, _experiments(setting, seeds, ["Cyclic"]), cohort=fm.cohorts.cyclic()
    )
    first = np.repeat([setting.members(how)[0] for how in INPUTS], seeds)
    params = {
        k: np.asarray(v)[np.arange(len(first)), first]
        for k, v in run.client_states.variables.params.items()
    }
    return _unfold(params, seeds, [name])


def _pooled_and_alone(setting: Setting, seeds: int) -> list[Trained]:
    """Every centre, and everybody together as one more client, trained alone with Adam."""
    run = fm.simulate(
        algorithms.local_only(setting.task.gradient, optax.adam(setting.adam_rate)),
        setting.both_and_everybody(),
        task=setting.task,
        rounds=1,
        local_work=setting.alone_work,
        experiments=fm.grid(seed=range(seeds)),
        lanes=1,
    )
    names = [f"Local {k}" for k in range(len(setting.centres))] + ["Pooled"]
    params = run.client_states.variables.params  # [seeds, inputs x names, ...]
    return [
        Trained(name, how, {k: np.asarray(v)[:, i * len(names) + j] for k, v in params.items()})
        for i, how in enumerate(INPUTS)
        for j, name in enumerate(names)
    ]


def _newton(setting: Setting) -> Trained:
    """The penalised likelihood of everybody, by sums of derivatives; nothing in it is random."""
    dataset = setting.inputs[INPUTS[1]]
    run = fm.simulate(
        algorithms.newton(setting.likelihood.loss, ridge=RIDGE),
        dataset,
        task=setting.likelihood,
        rounds=NEWTON_ROUNDS,
        local_work=fm.epochs(1, batch_size=int(dataset.train.sizes.max()), shuffle=False),
    )
    return Trained("Newton", INPUTS[1], {k: v[None] for k, v in run.variables.params.items()})

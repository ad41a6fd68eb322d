"""What a federated model is compared with: each client alone, all pooled, the majority.

The budget of the trained baselines is that of the federated run: the same local work and the
same number of rounds, every client in every round. Their optimizer keeps its state from round
to round, as in ordinary training.
"""

from __future__ import annotations

import math

import numpy as np
import optax

from fedjax_med.algorithms import local_only
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Evaluation, Task, simulate
from fedjax_med.engine.evaluate import evaluate
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import Placement


def local_only_baseline(
    dataset: FederatedDataset,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    rounds: int,
    local_work: LocalWork,
    seed: int = 0,
    placement: Placement | None = None,
    split: str = "test",
) -> Evaluation:
    """Every client trains on its own examples and is judged by its own model."""
    run = simulate(
        local_only(task.gradient, optimizer),
        dataset,
        task=task,
        rounds=rounds,
        local_work=local_work,
        seed=seed,
        placement=placement,
        evaluate_every=rounds,
        evaluate_on=(split,),
    )
    return run.evaluations[-1]


def pooled_baseline(
    dataset: FederatedDataset,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    rounds: int,
    local_work: LocalWork,
    seed: int = 0,
    split: str = "test",
) -> Evaluation:
    """One model trained on the examples of all clients together, judged on each client."""
    run = simulate(
        # With a single client, training alone is ordinary central training.
        local_only(task.gradient, optimizer),
        dataset.pooled(),
        task=task,
        rounds=rounds,
        local_work=local_work,
        seed=seed,
    )
    variables = run.client_states.variables
    variables = type(variables)(*(_only_client(part) for part in variables))
    return evaluate(variables, dataset, task=task, split=split, round_index=rounds)


def majority_baseline(dataset: FederatedDataset, split: str = "test") -> Evaluation:
    """Every client predicts the label most frequent in its own training examples.

    Of equally frequent labels the smaller one. Gives `accuracy`, and for labels 0 and 1 also
    `sensitivity` and `specificity`; a loss is not defined, as there is no probability.

    Raises:
      ValueError: if the labels `examples["y"]` are not integers `[N]`.
    """
    arrays = dataset.splits()[split]
    train, judged = dataset.train.examples["y"], arrays.examples["y"]
    if train.ndim != 1 or train.dtype.kind not in "biu":
        raise ValueError(f"labels must be integers, got {train.dtype} {list(train.shape)}.")
    num_clients = dataset.num_clients
    num_labels = 1 + int(max(train.max(initial=0), judged.max(initial=0)))
    owner = np.repeat(np.arange(num_clients), dataset.train.sizes)
    counts = np.bincount(owner * num_labels + train, minlength=num_clients * num_labels)
    predicted = counts.reshape(num_clients, num_labels).argmax(axis=1)
    owner = np.repeat(np.arange(num_clients), arrays.sizes)
    right = predicted[owner] == judged
    among = {"accuracy": np.ones(len(judged), bool)}
    if num_labels <= 2:
        among |= {"sensitivity": judged == 1, "specificity": judged == 0}
    pooled, per_client = {}, {}
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not defined
        for name, counted in among.items():
            top = np.bincount(owner, right & counted, num_clients)
            bottom = np.bincount(owner, counted, num_clients)
            per_client[name] = top / bottom
            pooled[name] = np.asarray(top.sum() / bottom.sum())
    return Evaluation(split, 0, pooled, per_client)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share that was observed in `count` independent cases.

    References:
      Wilson, Journal of the American Statistical Association 22, 1927.
    """
    if not count or not math.isfinite(share):
        return (math.nan, math.nan)
    z = 1.959963984540054  # the 97.5 % point of the normal distribution
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # Rounding must not push a bound past 0, 1 or the share itself.
    return max(0.0, min(share, (middle - half) / scale)), min(
        1.0, max(share, (middle + half) / scale)
    )


def _only_client(tree):
    import jax

    return jax.tree.map(lambda x: x[0], tree)

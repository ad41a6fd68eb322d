"""What a federated model is compared with: clients alone, the best of them, everybody pooled.

The budget of the trained baselines is that of the federated run: the same local work and the
same number of rounds, every client in every round. Their optimizer keeps its state from round
to round, as in ordinary training.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_med.algorithms import local_only
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Batch, Evaluation, Run, Task, Variables, simulate
from fedjax_med.engine.contracts import PyTree
from fedjax_med.engine.evaluate import evaluate
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.engine.placement import Placement
from fedjax_med.reporting.summary import main_metric

_BATCH_SIZE = 128  # of evaluations
_EXAMPLES_AT_ONCE = 8192
# Clients whose models are all tried on each other: the work grows with clients x examples.
MAX_SITES = 1000


def train_alone(
    dataset: FederatedDataset,
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    rounds: int,
    local_work: LocalWork,
    seed: int = 0,
    placement: Placement | None = None,
    split: str = "test",
) -> Run:
    """The run in which every client trains on its own examples; judged on a split at its end."""
    return simulate(
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


def local_only_baseline(alone: Run) -> Evaluation:
    """Every client is judged by its own model, of `train_alone`."""
    return alone.evaluations[-1]


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
    variables = type(variables)(*(_of_client(part, 0) for part in variables))
    return evaluate(variables, dataset, task=task, split=split, round_index=rounds)


class BestSite(NamedTuple):
    """The client whose own model serves all others best.

    Attributes:
      client: its name.
      evaluation: of its model on every client.
    """

    client: str
    evaluation: Evaluation


def best_site_baseline(
    alone: Run,
    dataset: FederatedDataset,
    task: Task,
    *,
    split: str = "test",
    choose_on: str = "train",
    metric: str | None = None,
) -> BestSite:
    """Of the clients' own models the one that is best for everybody, judged on each client.

    What a federation has to beat: one hospital's model, handed to the others. The best has the best
    mean of `metric` over clients, each counted once, of those where it is defined; of equal ones the
    first. With `choose_on="test"` the choice has seen what it is judged by, which flatters it.

    Args:
      alone: of `train_alone`.
      dataset: the clients.
      task: what was learned.
      split: the examples it is judged on.
      choose_on: the examples the choice is made on.
      metric: by its name; the `main_metric` if None.

    Raises:
      ValueError: if there is no such split or metric, if the metric is defined for no client, or if
        there are more than `MAX_SITES` clients: every model is judged on every client.
    """
    if dataset.num_clients > MAX_SITES:
        raise ValueError(
            f"the best of at most {MAX_SITES} clients is looked for, got {dataset.num_clients}."
        )
    names = task.metric_names
    metric = metric or main_metric(names)
    if metric not in names:
        raise ValueError(f"metric must be one of {', '.join(names)}, got {metric!r}.")
    models = alone.client_states.variables
    chosen_by = _every_model(models, dataset, task, choose_on)[metric]  # [models, clients]
    defined = ~np.isnan(chosen_by)
    counts = defined.sum(axis=1)
    means = np.where(defined, chosen_by, 0).sum(axis=1) / np.maximum(counts, 1)
    if not task.higher_is_better[names.index(metric)]:
        means = -means
    if not counts.any():
        raise ValueError(f"{metric} is not defined for any client on {choose_on} examples.")
    best = int(np.argmax(np.where(counts > 0, means, -np.inf)))
    variables = type(models)(*(_of_client(part, best) for part in models))
    judged = evaluate(variables, dataset, task=task, split=split, round_index=alone.rounds)
    return BestSite(dataset.client_names[best], judged)


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


def _of_client(tree: PyTree, client: int) -> PyTree:
    return jax.tree.map(lambda x: x[client], tree)


def _every_model(
    models: Variables, dataset: FederatedDataset, task: Task, split: str
) -> dict[str, np.ndarray]:
    """Metrics `[models, clients]` of every client's model on every client."""
    arrays = dataset.splits().get(split)
    if arrays is None or arrays.num_examples == 0:
        raise ValueError(f"choose_on must have examples, but {dataset.name} has no {split!r}.")
    # Minibatches as in evaluations, of one client each: risks are compared within them.
    size = min(_BATCH_SIZE, int(arrays.sizes.max()))
    owner, rows, masks = _minibatches(arrays, size)
    num_models = jax.tree.leaves(models)[0].shape[0]
    piece = min(len(owner), max(1, _EXAMPLES_AT_ONCE // size))

    @jax.jit
    def of_all(
        models: Variables, examples: PyTree, masks: jax.Array
    ) -> dict[str, tuple[jax.Array, jax.Array]]:
        def of_one(variables: Variables, examples: PyTree, mask: jax.Array) -> PyTree:
            batch = Batch(examples, mask, jnp.sum(mask, dtype=jnp.float32), jax.random.key(0))
            return jax.tree.map(batch.masked_sum, task.metrics(variables, batch))

        of_minibatches = jax.vmap(of_one, (None, 0, 0))
        return jax.lax.map(lambda variables: of_minibatches(variables, examples, masks), models)

    sums = {n: np.zeros((2, num_models, arrays.num_clients)) for n in task.metric_names}
    for start in range(0, len(owner), piece):
        count = min(piece, len(owner) - start)
        taken = np.minimum(np.arange(start, start + piece), len(owner) - 1)
        examples = jax.tree.map(lambda x, t=taken: np.asarray(x[rows[t]]), arrays.examples)
        whose = owner[start : start + count, None] == np.arange(arrays.num_clients)
        for name, parts in of_all(models, examples, masks[taken]).items():
            for total, part in zip(sums[name], parts, strict=True):
                total += np.asarray(part, np.float64)[:, :count] @ whose
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN: not defined
        return {name: top / bottom for name, (top, bottom) in sums.items()}


def _minibatches(arrays: ClientArrays, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owner `[M]`, rows `[M, size]` and mask `[M, size]` of everybody's minibatches."""
    count = -(-arrays.sizes // size)
    owner = np.repeat(np.arange(arrays.num_clients), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    place = number[:, None] * size + np.arange(size)
    last = arrays.sizes[owner, None] - 1
    return owner, arrays.offsets[owner, None] + np.minimum(place, last), place <= last

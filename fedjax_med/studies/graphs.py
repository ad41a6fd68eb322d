"""Link prediction with relations spread over hospitals: FedE, every hospital alone, all triples pooled.

FedE (Chen et al., IJCKG 2021, https://arxiv.org/abs/2010.12882) averages the embeddings of entities over the
hospitals that have them; triples and embeddings of relations stay. All seeds of a method are one compiled
call. Rates and budgets are the same for all, and nothing is tuned.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedjax_med import algorithms, tasks
from fedjax_med.aggregation import mean_over_holders
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.engine import (
    Batch,
    Experiments,
    FederatedAlgorithm,
    Run,
    Task,
    Variables,
    epochs,
    grid,
    simulate,
)
from fedjax_med.models.graph_embeddings import GRAPH_MODELS, INDIFFERENT
from fedjax_med.studies.scores import Metric, Row, over_seeds, result_of
from fedjax_med.tasks.defaults import NUM_NEGATIVES
from fedjax_med.tasks.links import METRICS, Graph

Training = Literal["FedE", "isolation", "collection"]
TRAININGS: tuple[Training, ...] = ("FedE", "isolation", "collection")

_EXPLAINED = {
    "isolation": "every hospital trains this model on its own triples and shares nothing",
    "collection": "this model is trained on the triples of all hospitals in one place",
}
_TITLES = {"isolation": "alone", "collection": "pooled", "FedE": "FedE"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSettings:
    """All choices of a study of a knowledge graph.

    Attributes:
      methods: models whose entities hospitals share by FedE, keys of `GRAPH_MODELS`.
      num_seeds: trainings that differ in nothing but the seed.
      rounds: federated rounds.
      local_epochs: passes of a hospital over its triples in a round.
      batch_size: triples of a minibatch.
      learning_rate: of Adam, in every hospital.
      seed: the first.

    Raises:
      ValueError: names the setting that does not fit.
    """

    methods: tuple[str, ...] = tuple(GRAPH_MODELS)
    num_seeds: int = 3
    rounds: int = 10
    local_epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name in self.methods:
            if name not in GRAPH_MODELS:
                raise ValueError(f"methods must be among {', '.join(GRAPH_MODELS)}, got {name!r}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must name some, each once, got {self.methods!r}.")
        for name in ("num_seeds", "rounds", "local_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}.")


class GraphStudy(NamedTuple):
    """What was trained.

    Attributes:
      dataset: of triples.
      graph: which triples are true, and whose entities are whose.
      chosen: model with the best mean reciprocal rank of FedE on validation triples.
      entities: float32 `[entities, size]`, of that model after FedE, first seed.
    """

    dataset: FederatedDataset
    graph: Graph
    chosen: str
    entities: np.ndarray


def train(
    model: str,
    training: Training,
    dataset: FederatedDataset,
    graph: Graph,
    experiments: Experiments,
    settings: GraphSettings,
    *,
    splits: Sequence[str] = ("test",),
) -> tuple[Run, Task]:
    """One run of all experiments, judged at its end.

    Args:
      model: a key of `GRAPH_MODELS`.
      training: "FedE"; "isolation", every client alone; "collection", where each client of `dataset`
        holds the triples of many hospitals, whose candidates are still their own.
      dataset: of triples.
      graph: of the hospitals.
      experiments: seeds, and members if the clients of several divisions are joined.
      settings: of the study.
      splits: that are judged.
    """
    everything = np.ones_like(graph.own) if training == "collection" else None
    task = tasks.link_prediction(
        GRAPH_MODELS[model](), graph, num_negatives=NUM_NEGATIVES, negatives=everything
    )
    run = simulate(
        _algorithm(training, task, optax.adam(settings.learning_rate)),
        dataset,
        task=task,
        rounds=settings.rounds,
        local_work=epochs(settings.local_epochs, batch_size=settings.batch_size),
        experiments=experiments,
        evaluate_every=settings.rounds,
        evaluate_on=tuple(splits),
    )
    return run, task


def fed_e(
    gradient: Any, optimizer: optax.GradientTransformation, **options: Any
) -> FederatedAlgorithm:
    """FedE: entities are averaged over the hospitals that trained them, relations stay."""
    return algorithms.lg_fed_avg(
        gradient,
        optimizer,
        is_global=algorithms.layers("entities"),
        aggregator=mean_over_holders(),
        weighting=algorithms.equal,
        **options,
    )


def _algorithm(
    training: Training, task: Task, optimizer: optax.GradientTransformation
) -> FederatedAlgorithm:
    if training == "FedE":
        return fed_e(task.gradient, optimizer)
    if training == "isolation":
        return algorithms.local_only(task.gradient, optimizer)
    return algorithms.fed_avg(task.gradient, optimizer)


def study_graph(
    dataset: FederatedDataset,
    settings: GraphSettings,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], GraphStudy]:
    """Compares FedE with hospitals alone and all triples pooled, for every model.

    Returns:
      The result, as `summarise` gives it, and what was trained.

    Raises:
      DataError: if there is one hospital, or a split is missing.
    """
    if dataset.num_clients < 2:
        raise DataError(f"a study needs at least 2 hospitals, {dataset.name} has 1.")
    for split in ("validation", "test"):
        if split not in dataset.splits():
            raise DataError(f"{dataset.name} has no {split} triples, which a study needs.")
    start = time.perf_counter()
    graph = tasks.graph_of(dataset)
    seeds = range(settings.seed, settings.seed + settings.num_seeds)
    rows: dict[str, Row] = {"no_model": _nothing_known(dataset, graph, settings.num_seeds)}
    seconds: dict[str, float] = {}
    validated: dict[str, float] = {}
    entities: dict[str, np.ndarray] = {}
    federated: dict[str, Row] = {}
    for model in settings.methods:
        for training in TRAININGS:
            tell(f"{model}, {_TITLES[training]}")
            began = time.perf_counter()
            run, task = train(
                model,
                training,
                dataset.pooled() if training == "collection" else dataset,
                graph,
                grid(seed=seeds),
                settings,
                splits=("validation", "test"),
            )
            by_split = _by_triple(run, task, training, dataset)
            row = _row(f"{model}, {_TITLES[training]}", training, by_split["test"])
            if training == "FedE":
                federated[f"{model}/FedE"] = row
                validated[model] = float(by_split["validation"].per_hospital["mrr"].mean())
                entities[model] = np.asarray(run.variables.params["entities"])[0]
            else:
                rows[f"{model}/{training}"] = row
            seconds[row.title] = time.perf_counter() - began
    seconds["total"] = time.perf_counter() - start
    best = max(validated, key=lambda name: np.nan_to_num(validated[name]))
    rows |= federated
    result = result_of(
        dataset,
        "links",
        rows,
        metrics=dict.fromkeys(METRICS, Metric(1.0)),
        interval=over_seeds,
        chosen=f"{best}/FedE",
        chosen_on="validation triples",
        against={
            f"{best}/isolation": f"hospitals that train {best} alone",
            f"{best}/collection": f"{best} trained on all triples in one place",
            "no_model": "knowing nothing",
        },
        settings=dataclasses.asdict(settings),
        about={
            "examples": "triples",
            "divided": f"the dataset's own test triples, {settings.num_seeds} seeds, "
            f"{settings.rounds} rounds of {settings.local_epochs} epochs",
            "how": "Intervals are 95 % over seeds of the training alone (Student's t): there is one "
            "division into hospitals and one test set. For every test triple, head and tail are ranked "
            "among the entities of the hospital that holds it, other right answers left out. All "
            "trainings have the same learning rate and budget; nothing was tuned.",
        },
        numbers={name: settings.learning_rate for name in rows if name != "no_model"},
        seconds=seconds,
    )
    return result, GraphStudy(dataset, graph, best, entities[best])


class JudgedTriples(NamedTuple):
    """Metrics by name: `pooled` `[seeds]`, `per_hospital` `[seeds, hospitals]`."""

    pooled: dict[str, np.ndarray]
    per_hospital: dict[str, np.ndarray]


def _by_triple(
    run: Run, task: Task, training: Training, dataset: FederatedDataset
) -> dict[str, JudgedTriples]:
    """Metrics of every split, by whose triples they are."""
    if training != "collection":
        return {
            e.split: JudgedTriples(dict(e.pooled), dict(e.per_client))
            for e in run.evaluations
            if e.per_client
        }
    return {
        split: judge_shared(run.variables, task, dataset, split) for split in ("validation", "test")
    }


def judge_shared(
    models: Variables, task: Task, dataset: FederatedDataset, split: str
) -> JudgedTriples:
    """Judges models that are the same everywhere, `[models, ...]`, on every hospital's triples."""
    arrays = dataset.splits()[split]
    size = arrays.num_examples

    @jax.jit
    def metrics(models: Variables, examples: Any) -> dict[str, tuple[jax.Array, jax.Array]]:
        batch = Batch(examples, jnp.ones(size, bool), jnp.float32(size), jax.random.key(0))
        return jax.vmap(lambda model: task.metrics(model, batch))(models)

    values = {
        name: np.asarray(value, np.float64)
        for name, (value, _) in metrics(models, arrays.examples).items()
    }
    first, filled = arrays.offsets[:-1], arrays.sizes > 0
    per_hospital = {}
    for name, value in values.items():
        own = np.full((len(value), arrays.num_clients), np.nan)
        sums = np.add.reduceat(value, first[filled], axis=1)
        own[:, filled] = sums / arrays.sizes[filled]
        per_hospital[name] = own
    return JudgedTriples({n: v.mean(axis=1) for n, v in values.items()}, per_hospital)


def _row(title: str, training: Training, judged: JudgedTriples) -> Row:
    return Row(
        title,
        training != "FedE",
        judged.pooled,
        judged.per_hospital,
        explained=_EXPLAINED.get(training, ""),
    )


def _nothing_known(dataset: FederatedDataset, graph: Graph, num_seeds: int) -> Row:
    """Every candidate is as good as any other, so each answer gets the middle rank."""
    task = tasks.link_prediction(INDIFFERENT, graph)
    model = jax.tree.map(lambda x: x[None], task.init(0))
    found = judge_shared(model, task, dataset, "test")
    return Row(
        "no model",
        True,
        {name: np.repeat(value, num_seeds) for name, value in found.pooled.items()},
        {name: np.repeat(value, num_seeds, axis=0) for name, value in found.per_hospital.items()},
        explained="all entities of the hospital are equally plausible, so every answer gets the middle "
        "rank",
    )

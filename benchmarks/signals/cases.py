"""The comparisons: who is trained on, who is judged, by which model and metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.signals.judge import Judging
from fedjax_med import datasets
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.engine import Task, epochs
from fedjax_med.engine.local_work import LocalWork
from fedjax_med.evaluation import (
    Metric,
    class_metrics,
    class_probabilities,
    multiclass_metrics,
    regression_metrics,
)
from fedjax_med.evaluation.by_kind import scaled_output
from fedjax_med.models import Model, mlp, signals
from fedjax_med.studies.populations import Fitted, Population
from fedjax_med.tasks import multiclass_classification, regression

_WITH_PERSONAL = ("fedavg", "fedprox", "fedadam", "ditto", "fedper", "apfl")
DataDir = str | os.PathLike | None
_NOTHING = Fitted(lambda dataset: dataset, lambda outputs: outputs, None)


class Case(NamedTuple):
    """A comparison.

    Attributes:
      title: for headings.
      to_tune: populations that learning rates are chosen on.
      final: the population that results are of.
      model: of all methods.
      task: what is learned.
      rounds: federated rounds.
      work: of a patient's device in a round.
      rates: learning rates, of which one is chosen for each method.
      link: from outputs to what metrics take.
      metrics: the main one first.
      methods: keys of `methods.FEDERATED`.
      trivial: by title, outputs `[1, N, outputs]` of what needs no model.
      tuned: methods with a learning rate of their own. The clients of the others take the steps of
        FedAvg's, with the rate that is best for it.
      tie_break: of learning rates that are equally good by the main metric, as those of models are that
        know one class only; 0 is perfect.
    """

    title: str
    to_tune: list[Population]
    final: Population
    model: Model
    task: Task
    rounds: int
    work: LocalWork
    rates: tuple[float, ...]
    link: Callable[[np.ndarray], Any]
    metrics: Mapping[str, Metric]
    methods: tuple[str, ...]
    trivial: Mapping[str, np.ndarray]
    tuned: tuple[str, ...] = ("fedavg", "scaffold", "fedadam", "local", "pooled")
    tie_break: Metric | None = None

    def judging(self, population: Population) -> Judging:
        """How those who are judged of a population are judged."""
        test = population.test
        client = np.repeat(np.arange(test.num_clients), test.sizes)
        names = population.judged.client_names
        return Judging(self.link, self.metrics, np.asarray(test.examples["y"]), client, names)

    @property
    def is_unseen(self) -> bool:
        """Whether those who are judged are other people than those who were trained on."""
        return self.final.is_left_out


def population(
    trained: FederatedDataset, judged: FederatedDataset, name: str = "all"
) -> Population:
    """A division that needs no preprocessing."""
    return Population(name, trained, judged, trained, judged, _NOTHING)


def as_test(dataset: FederatedDataset) -> FederatedDataset:
    """The validation examples in place of the test examples."""
    return dataset.replace(validation=None, test=dataset.validation)


def shares(population: Population, *, own: bool) -> np.ndarray:
    """Outputs `[1, N, classes]`: logarithms of how often classes are, of each patient or of all."""
    train, test = population.train.train, population.test
    classes = len(population.train.label_names)
    counts = np.stack(
        [
            np.bincount(train.client(c)["y"], minlength=classes) + 0.5
            for c in range(train.num_clients)
        ]
    )
    if not own:
        counts = np.broadcast_to(counts.sum(axis=0), (test.num_clients, classes))
    logs = np.log(counts / counts.sum(axis=1, keepdims=True))
    return np.repeat(logs, test.sizes, axis=0)[None]


def _classification(
    title: str,
    to_tune: list[Population],
    final: Population,
    build: Callable[[int], Model],
    *,
    rounds: int,
    methods: tuple[str, ...],
    trivial: Mapping[str, np.ndarray],
    rates: tuple[float, ...] = (0.1, 0.3, 1.0),
) -> Case:
    names = final.train.label_names
    model = build(len(names))
    general = multiclass_metrics()
    return Case(
        title,
        to_tune,
        final,
        model,
        multiclass_classification(model, final.train.train.examples),
        rounds,
        epochs(1, batch_size=32),
        rates,
        class_probabilities,
        {
            **{name: general[name] for name in ("f1", "balanced_accuracy", "accuracy")},
            **class_metrics(names, ("S", "V")),
        },
        methods,
        trivial,
        tie_break=general["brier"],
    )


def _residual_network(num_outputs: int) -> Model:
    return signals.residual_network(num_outputs, widths=(8, 16))


def unseen_patients(data_dir: DataDir) -> Case:
    """Beats of patients that nobody has seen: de Chazal's DS1 trains, DS2 is judged."""
    seen = datasets.mitbih_beats(data_dir=data_dir, patients="DS1", minutes=None)
    final = population(seen, datasets.mitbih_beats(data_dir=data_dir, patients="DS2"))
    divided = datasets.mitbih_beats(data_dir=data_dir, patients="DS1")
    left_out = [
        population(
            seen.select([n for n in seen.client_names if n != name]), divided.select([name]), name
        )
        for name in seen.client_names
    ]
    return _classification(
        "Heart beats of patients who were not trained on",
        left_out,
        final,
        _residual_network,
        rounds=6,
        methods=("fedavg", "fedprox", "scaffold", "fedadam"),
        trivial={"always the most frequent class": shares(final, own=False)},
    )


def own_patients(data_dir: DataDir) -> Case:
    """Beats of a patient whose first five minutes are labelled."""
    load = partial(datasets.mitbih_beats, data_dir=data_dir)
    tuning = as_test(load(minutes=3.5, validation_minutes=1.5))
    final = population(load(), load())
    return _classification(
        "Heart beats of patients with five labelled minutes",
        [population(tuning, tuning)],
        final,
        _residual_network,
        rounds=15,
        methods=_WITH_PERSONAL,
        trivial={"patient's own shares of classes": shares(final, own=True)},
    )


def _rhythm(data_dir: DataDir, name: str, build: Callable[[int], Model]) -> Case:
    load = partial(datasets.mitbih_rr, data_dir=data_dir)
    tuning = as_test(load(minutes=3.5, validation_minutes=1.5))
    final = population(load(minutes=5.0), load(minutes=5.0))
    return _classification(
        f"Class of a beat from intervals alone, {name}",
        [population(tuning, tuning)],
        final,
        build,
        rounds=20,
        methods=_WITH_PERSONAL,
        trivial={"patient's own shares of classes": shares(final, own=True)},
    )


def rhythm_gru(data_dir: DataDir) -> Case:
    """The class of a beat from the intervals around it, by a GRU."""
    return _rhythm(data_dir, "GRU", signals.gru)


def rhythm_convolution(data_dir: DataDir) -> Case:
    """The same by a temporal convolution."""
    return _rhythm(data_dir, "temporal convolution", signals.temporal_convolution)


def _changes(made: FederatedDataset) -> FederatedDataset:
    """Scores and times from each patient's last training recording on, with outliers cut off.

    Some recordings have voices of twenty deviations, on which single patients' models diverge.
    """
    column = made.feature_names.index("test_time")
    clients = [made.train.client(c) for c in range(made.num_clients)]
    last_score = np.array([client["y"][-1] for client in clients])
    last_time = np.array([client["x"][-1, column] for client in clients])

    def changed(arrays: ClientArrays) -> ClientArrays:
        own = np.repeat(np.arange(made.num_clients), arrays.sizes)
        x = arrays.examples["x"].copy()
        x[:, column] -= last_time[own]
        examples = {"x": np.clip(x, -5, 5), "y": arrays.examples["y"] - last_score[own]}
        return ClientArrays(examples, arrays.sizes)

    return made.replace(**{split: changed(arrays) for split, arrays in made.splits().items()})


def voices(data_dir: DataDir) -> Case:
    """Parkinson's scores of the last weeks, from the patient's earlier months and the voice.

    The last training score is taken away at home, so a model that says 0 carries it forward; what is
    learned together is how scores change with time and voice.
    """
    load = partial(datasets.parkinsons_telemonitoring, data_dir=data_dir)
    data, tuning = _changes(load()), as_test(_changes(load(validation=0.2)))
    scale = float(data.train.examples["y"].std())
    model = mlp((16,), 1)
    final = population(data, data)
    test = final.test
    means = np.array([data.train.client(c)["y"].mean() for c in range(data.num_clients)])
    return Case(
        "Parkinson's scores of later weeks",
        [population(tuning, tuning)],
        final,
        model,
        regression(model, data.train.examples, scale=scale),
        40,
        epochs(1, batch_size=16),
        (0.0003, 0.001, 0.003, 0.01, 0.03),
        partial(scaled_output, scale=scale),
        {name: metric for name, metric in sorted(regression_metrics().items()) if name != "r2"},
        (*_WITH_PERSONAL, "scaffold", "fedrep"),
        {
            "patient's mean so far": np.repeat(means / scale, test.sizes)[None, :, None],
            "patient's last score": np.zeros((1, test.num_examples, 1)),
        },
        # Of these small models all can be; heads of single patients diverge with FedAvg's rate.
        (*_WITH_PERSONAL, "scaffold", "fedrep", "fine-tuned", "local", "pooled"),
    )


CASES: Mapping[str, Callable[[DataDir], Case]] = {
    "unseen": unseen_patients,
    "own": own_patients,
    "rr-gru": rhythm_gru,
    "rr-convolution": rhythm_convolution,
    "voices": voices,
}

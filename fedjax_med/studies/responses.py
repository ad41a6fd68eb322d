"""Responses of patients to drugs: what was not measured, new patients, and hospitals left out.

Every seed divides the responses, and the patients, anew, with the drugs' scales from its own training
responses.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.evaluation import corrected_t_test
from fedjax_med.studies.response_training import (
    FEDERATED,
    KNOWN,
    LEFT_OUT,
    METHODS,
    PATIENTS,
    RESPONSES,
    TEST,
    K,
    Outputs,
    Population,
    judged,
    populations,
    train,
)
from fedjax_med.studies.scores import Metric, Row, estimate, over_seeds, result_of
from fedjax_med.studies.summary import LEVEL
from fedjax_med.tasks.response import DrugScale


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResponseSettings:
    """All choices of a study of responses.

    Attributes:
      methods: among `FEDERATED`; the first is compared with the others.
      num_seeds: each divides the data anew.
      rounds: federated rounds of one pass.
      batch_size: patients of a minibatch.
      leave_one_out: whether every hospital is left out once, by "fedavg".
      seed: the first.

    Raises:
      ValueError: names the setting that does not fit.
    """

    methods: tuple[str, ...] = ("fedavg", "fedprox", "fedadam", "ditto")
    num_seeds: int = 5
    rounds: int = 20
    batch_size: int = 16
    leave_one_out: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name in self.methods:
            if name not in FEDERATED:
                raise ValueError(f"methods must be among {', '.join(FEDERATED)}, got {name!r}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must name some, each once, got {self.methods!r}.")
        for name, least in (("num_seeds", 2), ("rounds", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")


class Shown(NamedTuple):
    """What figures of a study show: the compared method on the first division.

    Attributes:
      title: of the method.
      drugs: names.
      predicted: by setting `[rows, drugs]`, in the unit of the responses.
      asked: by setting likewise, NaN where not asked for.
      scale: by setting, of every drug.
    """

    title: str
    drugs: tuple[str, ...]
    predicted: dict[str, np.ndarray]
    asked: dict[str, np.ndarray]
    scale: dict[str, DrugScale]


_METRICS = {
    "rmse": "rmse",
    "spearman": "spearman",
    "precision": f"precision@{K}",
    "ndcg": f"ndcg@{K}",
}
_OF_NEW = "_of_new patients"
_RANGES = {
    "rmse": Metric(0.0, 0.0, np.inf),
    "spearman": Metric(1.0, -1.0, 1.0),
    "precision": Metric(1.0),
    "ndcg": Metric(1.0),
}


def study_responses(
    dataset: FederatedDataset,
    settings: ResponseSettings,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], Shown]:
    """Compares factorisations of a matrix of responses trained in several ways.

    Returns:
      The result, as `summarise` gives it, and what figures show.

    Raises:
      DataError: if there are fewer than two hospitals, or a drug has no responses.
    """
    if dataset.num_clients < 2:
        raise DataError(f"a study needs at least 2 hospitals, {dataset.name} has 1.")
    start = time.perf_counter()
    seeds = range(settings.seed, settings.seed + settings.num_seeds)
    parts = populations(dataset, seeds, seeds_left_out=seeds[:1] if settings.leave_one_out else ())
    divided = [p for p in parts if p.setting != LEFT_OUT]
    zeros = [
        Outputs(i, seed, np.zeros(p.dataset.splits()["test"].examples["x"].shape))
        for i, p in enumerate(parts)
        for seed in p.seeds
    ]
    explained = "every response is that drug's mean over all hospitals' training patients"
    rows = {"no_model": _row("mean of the drug", True, parts, zeros, explained)}
    left_out = {}
    if settings.leave_one_out:
        left_out["no_model"] = _left_out(dataset, parts, zeros)
    seconds: dict[str, float] = {}
    shown = None
    for name in ("local", "pooled", *settings.methods):
        method = METHODS[name]
        tell(method.title)
        began = time.perf_counter()
        leaves = method.left_out and settings.leave_one_out
        mine = parts if leaves else divided
        made = train(method, mine, rounds=settings.rounds, batch_size=settings.batch_size)
        title = method.title.removeprefix("factorisation, ")
        rows[name] = _row(title, method.is_baseline, mine, made, method.explained)
        if leaves:
            left_out[name] = _left_out(dataset, mine, made)
        if name == settings.methods[0]:
            shown = _shown(title, dataset, mine, made)
        seconds[name] = time.perf_counter() - began
    assert shown is not None
    seconds["total"] = time.perf_counter() - start
    metrics = {
        title + suffix: _RANGES[key] for suffix in ("", _OF_NEW) for key, title in _METRICS.items()
    }
    result = result_of(
        dataset,
        "responses",
        rows,
        metrics=metrics,
        interval=lambda values: corrected_t_test(
            values, num_train=round(100 * (1 - TEST)), num_test=round(100 * TEST), level=LEVEL
        ),
        chosen=settings.methods[0],
        chosen_on="",
        against={
            "local": "hospitals that train alone",
            "no_model": "the mean of the drug",
            "pooled": "a model of all patients pooled",
        },
        settings=dataclasses.asdict(settings),
        about={
            "examples": "patients",
            "divided": f"{settings.num_seeds} random divisions, {settings.rounds} rounds",
            "how": f"A fifth of every patient's responses is asked for; for new patients, a fifth of "
            f"every hospital's patients of whom {KNOWN} responses are known. Every seed divides anew; "
            "intervals are 95 % over divisions, corrected for the responses that they share (Nadeau and "
            "Bengio 2003). RMSE is in the unit of the responses; Spearman's correlation is over the "
            f"patients of a drug; precision and NDCG are of the {K} drugs that work best for a patient "
            "compared with others. Learning rates are fixed, nothing was tuned.",
        },
        left_out=left_out,
        seconds=seconds,
    )
    return result, shown


def _row(
    title: str,
    is_baseline: bool,
    parts: Sequence[Population],
    made: Sequence[Outputs],
    explained: str,
) -> Row:
    pooled: dict[str, np.ndarray] = {}
    per_hospital: dict[str, np.ndarray] = {}
    for setting, suffix in ((RESPONSES, ""), (PATIENTS, _OF_NEW)):
        found = [
            judged(parts[o.population], o.outputs)
            for o in made
            if parts[o.population].setting == setting
        ]
        width = len(parts[0].judged)
        for key, name in _METRICS.items():
            nothing = [None] * width
            pooled[name + suffix] = np.array([f[key] for f in found], np.float64)
            per_hospital[name + suffix] = np.array(
                [f.get(f"{key}_by_client", nothing) for f in found], np.float64
            )
    return Row(title, is_baseline, pooled, per_hospital, explained)


def _left_out(
    dataset: FederatedDataset, parts: Sequence[Population], made: Sequence[Outputs]
) -> dict[str, Any]:
    """The main metric of all patients of every hospital, by models that never saw it."""
    (of,) = {len(p.seeds) for p in parts if p.setting == LEFT_OUT}
    found = [
        judged(parts[o.population], o.outputs)["rmse"]
        for o in made
        if parts[o.population].setting == LEFT_OUT
    ]
    by_hospital = np.array(found).reshape(-1, of)  # [hospitals, seeds]
    sizes = dataset.train.sizes
    metric = _RANGES["rmse"]

    def told(values: np.ndarray) -> dict[str, Any]:
        return {"rmse": estimate(values, metric, over_seeds)}

    return {
        "per_hospital": {
            name: {"metrics": told(own)}
            for name, own in zip(dataset.client_names, by_hospital, strict=True)
        },
        "mean": told(by_hospital.mean(axis=0)),
        # Of squares, by patients: nearly all have the same number of responses.
        "pooled": {"metrics": told(np.sqrt(sizes @ by_hospital**2 / sizes.sum()))},
    }


def _shown(
    title: str, dataset: FederatedDataset, parts: Sequence[Population], made: Sequence[Outputs]
) -> Shown:
    predicted, asked, scale = {}, {}, {}
    for o in made:
        part = parts[o.population]
        if part.setting in predicted or part.setting == LEFT_OUT:
            continue
        e = part.dataset.splits()["test"].examples
        predicted[part.setting] = part.scale.invert(o.outputs)
        asked[part.setting] = np.where(e["measured"], part.scale.invert(e["y"]), np.nan)
        scale[part.setting] = part.scale
    return Shown(title, dataset.feature_names, predicted, asked, scale)

"""Polygenic scores of genotypes: federated analyses, every hospital alone, and all people pooled.

There are no outcomes in the genotypes, so they are simulated with known effects, one for each seed: it is
known which SNPs should be found.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from fedjax_med import genomics
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets import Snps, hapmap3_snps
from fedjax_med.evaluation import together
from fedjax_med.genomics import Association, Phenotype
from fedjax_med.studies.genotype_references import (
    HERITABILITY,
    NUM_COMPONENTS,
    THRESHOLD,
    dual_ridge,
    pooled_clumped,
)
from fedjax_med.studies.genotype_scores import (
    SITE_SHIFT,
    alone,
    clumped,
    kept_out,
    meta_analysis,
    phenotypes,
    ridge,
    rows_of,
    within,
)
from fedjax_med.studies.scores import Metric, Row, over_seeds, result_of

METHODS: Mapping[str, str] = MappingProxyType(
    {
        "intercepts": "clumped, hospital intercepts",
        "components": "clumped, ten components",
        "meta": "clumped, meta-analysis",
        "unadjusted": "clumped, no covariates",
        "ridge": "ridge",
    }
)
_BASELINES = {
    "no_model": ("no model", "everybody of a hospital has the same score"),
    "local": (
        "clumped, hospitals alone",
        "each hospital takes the SNPs below the threshold among its own people",
    ),
    "local_ridge": ("ridge, hospitals alone", "each hospital uses all SNPs of its own people"),
    "pooled": (
        "clumped, pooled",
        "SNPs and effects from the genotypes of all hospitals in one place",
    ),
    "pooled_ridge": (
        "ridge, pooled",
        "all SNPs, from the genotypes of all hospitals in one place",
    ),
}
_TOLERANCE = 1e-4  # of ridge regressions; their R² does not change in four digits
_METRICS = {
    "r2_within": Metric(1.0),
    "true_SNPs_found": Metric(20.0, 0.0, 20.0),
    "other_SNPs_found": Metric(0.0, 0.0, np.inf),
}
# Where the SNPs of a dataset are in the genome, by its name.
_SNPS: Mapping[str, Callable[..., Snps]] = MappingProxyType({"hapmap3": hapmap3_snps})


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenotypeSettings:
    """All choices of a study of genotypes.

    Attributes:
      methods: keys of `METHODS`; the first is compared with the others.
      num_seeds: simulated outcomes.
      seed: of the first.

    Raises:
      ValueError: names the setting that does not fit.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    num_seeds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the settings."""
        for name in self.methods:
            if name not in METHODS:
                raise ValueError(f"methods must be among {', '.join(METHODS)}, got {name!r}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods must name some, each once, got {self.methods!r}.")
        for name, least in (("num_seeds", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")


class Shown(NamedTuple):
    """What figures of a study show, of the first outcome.

    Attributes:
      dataset: training people.
      scores: of them on the principal components, `[N, components]`.
      associations: by title of the method.
      phenotype: the outcome of everybody.
      snps: of the columns; None where that is not known.
    """

    dataset: FederatedDataset
    scores: np.ndarray
    associations: dict[str, Association]
    phenotype: Phenotype
    snps: Snps | None


def autosomal(
    dataset: FederatedDataset, data_dir: str | os.PathLike | None = None
) -> tuple[FederatedDataset, Snps | None]:
    """The autosomal SNPs of a dataset that says where its SNPs are; else all of them.

    Raises:
      DataError: if that cannot be read.
    """
    read = _SNPS.get(dataset.name)
    snps = read and read(data_dir)
    if snps is None or snps.name != dataset.feature_names:
        return dataset, None
    chosen = np.flatnonzero(genomics.is_autosomal(snps.chromosome))
    kept = Snps(
        tuple(snps.name[i] for i in chosen),
        tuple(snps.chromosome[i] for i in chosen),
        snps.position[chosen],
        tuple(snps.allele[i] for i in chosen),
        tuple(snps.other[i] for i in chosen),
    )
    return genomics.select_snps(dataset, chosen), kept


def study_genotypes(
    dataset: FederatedDataset,
    settings: GenotypeSettings,
    *,
    data_dir: str | os.PathLike | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Any], Shown]:
    """Compares polygenic scores of simulated outcomes, by people who were kept out.

    Args:
      dataset: genotypes; all splits are taken together and divided anew.
      settings: see there.
      data_dir: folder with local copies of the dataset's files.
      tell: called with what is being done.

    Returns:
      The result, as `summarise` gives it, and what figures show.

    Raises:
      DataError: if there are fewer than two hospitals, or dosages are not 0 to 2.
    """
    if dataset.num_clients < 2:
        raise DataError(f"a study needs at least 2 hospitals, {dataset.name} has 1.")
    start = time.perf_counter()
    everybody, snps = autosomal(together(dataset), data_dir)
    seeds = range(settings.seed, settings.seed + settings.num_seeds)
    made = phenotypes(everybody, seeds)
    y = np.column_stack([one.outcome for one in made])
    tested = kept_out(everybody)
    train = rows_of(everybody, ~tested)
    client = np.repeat(np.arange(everybody.num_clients), everybody.train.sizes)
    x = everybody.train.examples["x"]
    new = x[tested]
    tell("principal components")
    components = genomics.principal_components(train, NUM_COMPONENTS, tolerance=1e-2)
    scores = genomics.scores(components, train)
    covariates = {
        "intercepts": genomics.client_indicators(train),
        "components": scores,
        "unadjusted": None,
    }
    seconds = {"principal components": time.perf_counter() - start}
    predicted: dict[str, np.ndarray] = {"no_model": np.zeros((len(new), len(seeds)))}
    tell("hospitals alone")
    predicted["local_ridge"], predicted["local"] = alone(everybody, y, tested)
    tell("all people pooled")
    predicted["pooled"] = pooled_clumped(x[~tested], y[~tested], client[~tested], new)
    predicted["pooled_ridge"] = dual_ridge(x[~tested], y[~tested], new)
    found: dict[str, list[Association]] = {}
    for name in settings.methods:
        tell(METHODS[name])
        began = time.perf_counter()
        if name == "ridge":
            predicted[name] = ridge(train, y[~tested], new, tolerance=_TOLERANCE)
        else:
            found[name] = [
                meta_analysis(train, outcome)
                if name == "meta"
                else genomics.linear_association(train, outcome, covariates[name])
                for outcome in y[~tested].T
            ]
            predicted[name] = np.column_stack(
                [
                    clumped(train, outcome, one, new)
                    for outcome, one in zip(y[~tested].T, found[name], strict=True)
                ]
            )
        seconds[name] = time.perf_counter() - began
    seconds["total"] = time.perf_counter() - start
    rows = {
        name: _row(name, predicted[name], y[tested], client[tested], found.get(name), made)
        for name in (*_BASELINES, *settings.methods)
    }
    first = settings.methods[0]
    result = result_of(
        everybody,
        "phenotype",
        rows,
        metrics=_METRICS,
        interval=over_seeds,
        chosen=first,
        chosen_on="",
        against={
            "local": "hospitals that use their own people only",
            "local_ridge": "hospitals alone with all SNPs",
            "pooled": "the same analysis of pooled genotypes",
        },
        settings=dataclasses.asdict(settings),
        about={
            "examples": "people",
            "divided": f"a fifth of each hospital's people kept out, {settings.num_seeds} simulated "
            "outcomes",
            "how": f"Outcomes are simulated on the real genotypes: 20 SNPs with a heritability of "
            f"{HERITABILITY} and a shift of every hospital with standard deviation {SITE_SHIFT:g}. "
            f"Clumped scores have the SNPs with p below {THRESHOLD:g}. R² is the squared correlation of "
            "score and outcome, both less the means of their hospital. Found is what passes Bonferroni's "
            "threshold. Intervals are 95 % over simulated outcomes (Student's t), for the same people.",
        },
        seconds=seconds,
    )
    titles = {METHODS[name]: each[0] for name, each in found.items()}
    return result, Shown(train, scores, titles, made[0], snps)


def _row(
    name: str,
    predicted: np.ndarray,
    outcome: np.ndarray,
    client: np.ndarray,
    found: list[Association] | None,
    made: list[Phenotype],
) -> Row:
    """Values by simulated outcome, of predictions `[people, outcomes]`."""
    columns = range(predicted.shape[1])
    pooled = {
        "r2_within": np.array([within(predicted[:, c], outcome[:, c], client) for c in columns])
    }
    own = [
        [
            genomics.explained(predicted[client == i, c], outcome[client == i, c])
            for i in range(client.max() + 1)
        ]
        for c in columns
    ]
    per_hospital = {"r2_within": np.array(own)}
    if found is not None:
        limit = np.log10(0.05 / len(found[0].log10_p))
        with np.errstate(invalid="ignore"):
            passed = [np.flatnonzero(one.log10_p < limit) for one in found]
        true = np.array([np.isin(p, m.causal).sum() for p, m in zip(passed, made, strict=True)])
        pooled["true_SNPs_found"] = true.astype(np.float64)
        pooled["other_SNPs_found"] = np.array([len(p) for p in passed]) - true.astype(np.float64)
        for key in ("true_SNPs_found", "other_SNPs_found"):
            per_hospital[key] = np.full_like(per_hospital["r2_within"], np.nan)
    title, explained = _BASELINES.get(name) or (METHODS[name], "")
    return Row(title, name in _BASELINES, pooled, per_hospital, explained)

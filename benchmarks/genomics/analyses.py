"""The federated analyses, each beside its references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.genomics.setting import Record
from fedjax_med.studies.genotype_references import (
    HERITABILITY,
    NUM_COMPONENTS,
    axes_of,
    dual_ridge,
    pooled_clumped,
    simple_regression,
)
from fedjax_med.studies.genotype_scores import (
    SITE_SHIFT,
    alone,
    clumped,
    kept_out,
    meta_analysis,
    outcomes,
    ridge,
    rows_of,
    within,
)

if TYPE_CHECKING:
    from fedjax_med.data import FederatedDataset
    from fedjax_med.genomics import Components


def structure(dataset: FederatedDataset, found: Components) -> Iterator[Record]:
    """Angles to the components of all people."""
    from fedjax_med import genomics

    z = found.scaling(dataset.train.examples["x"].astype(np.float64))
    pooled, singular = axes_of(z)
    yield {
        "case": "components",
        "passes": found.passes,
        "bound": found.error,
        "angle": genomics.principal_angle(found.axes, pooled),
        "variances_off": float(np.abs(found.variances / (singular**2 / len(z)) - 1).max()),
    }
    # Subspace iteration from the same first block, which forgets the blocks before.
    block = np.linalg.qr(np.random.default_rng(0).normal(size=(z.shape[1], NUM_COMPONENTS + 6)))[0]
    for _ in range(found.passes):
        block = np.linalg.qr(z.T @ (z @ block))[0]
    ritz = np.linalg.eigh(block.T @ (z.T @ (z @ block)))[1][:, ::-1][:, :NUM_COMPONENTS]
    yield {
        "case": "subspace iteration",
        "passes": found.passes,
        "angle": genomics.principal_angle(block @ ritz, pooled),
    }
    largest = _rows(dataset, int(dataset.train.sizes.argmax()))
    own = axes_of(z[largest])[0]
    yield {
        "case": "largest client alone",
        "angle": genomics.principal_angle(own, pooled),
    }


def _rows(dataset: FederatedDataset, client: int) -> slice:
    offsets = dataset.train.offsets
    return slice(int(offsets[client]), int(offsets[client + 1]))


def association(dataset: FederatedDataset, components: Components, seed: int) -> Iterator[Record]:
    """Lambda of outcomes without effects, and what is found of twenty effects."""
    from fedjax_med import genomics

    covariates = {
        "no covariates": None,
        f"{NUM_COMPONENTS} components": genomics.scores(components, dataset),
        "hospital intercepts": genomics.client_indicators(dataset),
    }
    plain = genomics.simulate_phenotype(dataset, heritability=0.0, seed=seed)
    found = genomics.linear_association(dataset, plain.outcome)
    lam = genomics.genomic_control(found.log10_p)
    yield {"case": "null", "outcome": "noise", "method": "no covariates", "lambda": lam}
    nothing = genomics.simulate_phenotype(
        dataset, heritability=0.0, site_shift=SITE_SHIFT, seed=seed
    )
    made = genomics.simulate_phenotype(
        dataset, heritability=HERITABILITY, site_shift=SITE_SHIFT, seed=seed
    )
    limit = np.log10(0.05 / len(components.axes))
    for method, given in covariates.items():
        found = genomics.linear_association(dataset, nothing.outcome, given)
        lam = genomics.genomic_control(found.log10_p)
        yield {"case": "null", "outcome": "shifted", "method": method, "lambda": lam}
        yield _found(
            method, genomics.linear_association(dataset, made.outcome, given).log10_p, made, limit
        )
        if method == "hospital intercepts":
            continue  # of the score test, two are enough to see what covariates do
        binary = (nothing.outcome > np.quantile(nothing.outcome, 0.7)).astype(np.int32)
        score = genomics.logistic_score_test(dataset, binary, given)
        lam = genomics.genomic_control(score.log10_p)
        yield {"case": "null", "outcome": "binary, shifted", "method": method, "lambda": lam}
    yield _found("meta-analysis", meta_analysis(dataset, made.outcome).log10_p, made, limit)
    largest = int(dataset.train.sizes.argmax())
    effect, se = simple_regression(
        dataset.train.client(largest)["x"], made.outcome[_rows(dataset, largest)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        t = effect / se
    freedom = float(dataset.train.sizes[largest] - 2)
    yield _found("largest client alone", genomics.log10_p_of_t(t, freedom), made, limit)


def _found(method: str, log10_p: np.ndarray, made: Any, limit: float) -> Record:
    passed = np.flatnonzero(log10_p < limit)
    true = int(np.isin(passed, made.causal).sum())
    return {"case": "effects", "method": method, "true": true, "false": len(passed) - true}


def _federated_scores(
    train: FederatedDataset, y: np.ndarray, new: np.ndarray
) -> dict[str, np.ndarray]:
    """Predictions `[new, outcomes]` of the federated methods."""
    from fedjax_med import genomics

    own = genomics.client_indicators(train)
    columns = [
        clumped(train, outcome, genomics.linear_association(train, outcome, own), new)
        for outcome in y.T
    ]
    return {
        "federated, clumped": np.column_stack(columns),
        "federated, ridge": ridge(train, y, new, tolerance=1e-6),
    }


def polygenic(dataset: FederatedDataset, seeds: Sequence[int]) -> Iterator[Record]:
    """Scores of a fifth of each population, from the other people."""
    y = outcomes(dataset, seeds)
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    tested = kept_out(dataset)
    x = dataset.train.examples["x"]
    train = rows_of(dataset, ~tested)
    predicted = _federated_scores(train, y[~tested], x[tested])
    pooled = dual_ridge(x[~tested], y[~tested], x[tested])
    predicted["pooled, ridge"] = pooled
    predicted["local, ridge"], predicted["local, clumped"] = alone(dataset, y, tested)
    predicted["trivial"] = np.zeros_like(pooled)
    apart = float(np.abs(predicted["federated, ridge"] - pooled).max())
    for method, score in predicted.items():
        for column, seed in enumerate(seeds):
            r2 = within(score[:, column], y[tested, column], client[tested])
            yield {"case": "scores", "method": method, "seed": seed, "r2": r2}
    yield {"case": "ridge, federated less pooled", "largest": apart}


def unseen(dataset: FederatedDataset, seeds: Sequence[int]) -> Iterator[Record]:
    """Scores of the people of each population from those of all others.

    Fitted to pooled people, which is quick with all SNPs; for the first population and seed the
    federated scores are made as well and compared.
    """
    y = outcomes(dataset, seeds)
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    x = dataset.train.examples["x"]
    for i, name in enumerate(dataset.client_names):
        here = client == i
        predicted = {
            "clumped": pooled_clumped(x[~here], y[~here], client[~here], x[here]),
            "ridge": dual_ridge(x[~here], y[~here], x[here]),
        }
        if i == 0:
            train = rows_of(dataset, ~here)
            federated = _federated_scores(train, y[~here, :1], x[here])
            for method, score in predicted.items():
                other = federated[f"federated, {method}"]
                # A constant apart is the intercept, which squared correlations do not see.
                gap = (score[:, :1] - other) - (score[:, :1] - other).mean()
                largest = float(np.abs(gap).max())
                yield {"case": "unseen, federated less pooled", "method": method, "gap": largest}
        for method, score in predicted.items():
            for column, seed in enumerate(seeds):
                r2 = within(score[:, column], y[here, column], np.zeros(int(here.sum()), int))
                about = {"population": name, "method": method, "seed": seed}
                yield {"case": "unseen", **about, "r2": r2}

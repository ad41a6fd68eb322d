"""Federated genetics on HapMap 3, with simulated outcomes, against pooled, local and naive analyses.

Parts: `structure` compares principal components with those of all people, `association` counts what is
found of known effects, `scores` predicts the other people of the populations, `unseen` those of a
population that was left out. `--table` turns a file of results into the tables of `docs/genomics.md`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import records

if TYPE_CHECKING:
    from fedjax_med.data import FederatedDataset
    from fedjax_med.genomics import Components

PARTS = ("structure", "association", "scores", "unseen")
NUM_COMPONENTS = 10
HERITABILITY = 0.5
SITE_SHIFT = 1.0
THRESHOLD = 1e-4
Record = dict[str, Any]


def genotypes() -> tuple[FederatedDataset, Any]:
    """The autosomal SNPs, and what is known of them."""
    from fedjax_med import datasets, genomics

    snps = datasets.hapmap3_snps()
    autosomal = np.flatnonzero(genomics.is_autosomal(snps.chromosome))
    chosen = type(snps)(
        tuple(snps.name[i] for i in autosomal),
        tuple(snps.chromosome[i] for i in autosomal),
        snps.position[autosomal],
        tuple(snps.allele[i] for i in autosomal),
        tuple(snps.other[i] for i in autosomal),
    )
    return genomics.select_snps(datasets.hapmap3(), autosomal), chosen


def rows_of(dataset: FederatedDataset, chosen: np.ndarray) -> FederatedDataset:
    """The dataset with some of its people, bool `[N]`."""
    from fedjax_med.data import ClientArrays, FederatedDataset

    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)[chosen]
    sizes = np.bincount(client, minlength=dataset.num_clients)
    x = dataset.train.examples["x"][chosen]
    return FederatedDataset(dataset.name, dataset.client_names, ClientArrays({"x": x}, sizes))


def structure(dataset: FederatedDataset, found: Components) -> Iterator[Record]:
    """Angles to the components of all people."""
    from fedjax_med import genomics

    z = found.scaling(dataset.train.examples["x"].astype(np.float64))
    pooled, singular = _axes(z)
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
    own = _axes(z[largest])[0]
    yield {
        "case": "largest client alone",
        "angle": genomics.principal_angle(own, pooled),
    }


def _axes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading right singular vectors and values, by way of the products of people."""
    squared, left = np.linalg.eigh(z @ z.T)
    singular = np.sqrt(squared[::-1][:NUM_COMPONENTS])
    return z.T @ left[:, ::-1][:, :NUM_COMPONENTS] / singular, singular


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
    # Local: the simple regressions of each hospital; meta: their mean by inverse variance.
    own = [
        _simple_regression(dataset.train.client(i)["x"], made.outcome[_rows(dataset, i)])
        for i in range(dataset.num_clients)
    ]
    weight = np.array([np.where(np.isfinite(se) & (se > 0), 1 / se**2, 0) for _, se in own])
    effect = np.nan_to_num([effect for effect, _ in own])
    total = weight.sum(axis=0)
    z = (weight * effect).sum(axis=0) / np.sqrt(np.where(total > 0, total, 1))
    yield _found("meta-analysis", genomics.log10_p_of_z(z), made, limit)
    largest = int(dataset.train.sizes.argmax())
    with np.errstate(divide="ignore", invalid="ignore"):
        t = own[largest][0] / own[largest][1]
    freedom = float(dataset.train.sizes[largest] - 2)
    yield _found("largest client alone", genomics.log10_p_of_t(t, freedom), made, limit)


def _found(method: str, log10_p: np.ndarray, made: Any, limit: float) -> Record:
    passed = np.flatnonzero(log10_p < limit)
    true = int(np.isin(passed, made.causal).sum())
    return {"case": "effects", "method": method, "true": true, "false": len(passed) - true}


def _simple_regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effects and standard errors of each SNP alone, missing genotypes taken for the mean."""
    called = np.maximum((~np.isnan(x)).sum(axis=0), 1)
    g = x - np.nansum(x, axis=0, dtype=np.float64) / called
    g, y = np.where(np.isnan(g), 0, g), y - y.mean()
    squares = (g**2).sum(axis=0)
    squares = np.where(squares > 1e-9, squares, np.nan)
    effect = g.T @ y / squares
    residual = np.maximum(y @ y - effect**2 * squares, 0)
    return effect, np.sqrt(residual / (len(y) - 2) / squares)


def _dual_ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ridge of people at hand in the dual; predictions `[new, outcomes]`."""
    called = np.maximum((~np.isnan(x)).sum(axis=0), 1)
    p = np.nansum(x, axis=0, dtype=np.float64) / called / 2
    varies = (p > 0) & (p < 1)
    scale = 1 / np.sqrt(2 * p[varies] * (1 - p[varies]))

    def standard(some: np.ndarray) -> np.ndarray:
        z = (some[:, varies] - 2 * p[varies]) * scale
        return np.where(np.isnan(z), 0, z)

    z, mean = standard(x), y.mean(axis=0)
    penalty = varies.sum() * (1 - HERITABILITY) / HERITABILITY
    dual = np.linalg.solve(z @ z.T + penalty * np.eye(len(x)), y - mean)
    return mean + standard(new) @ (z.T @ dual)


def _outcomes(dataset: FederatedDataset, seeds: Sequence[int]) -> np.ndarray:
    from fedjax_med import genomics

    made = [
        genomics.simulate_phenotype(
            dataset, heritability=HERITABILITY, site_shift=SITE_SHIFT, seed=seed
        )
        for seed in seeds
    ]
    return np.column_stack([m.outcome for m in made])


def _within(score: np.ndarray, outcome: np.ndarray, client: np.ndarray) -> float:
    """Squared correlation within populations: both less the means of their population."""
    from fedjax_med import genomics

    def less(values: np.ndarray) -> np.ndarray:
        totals = np.bincount(client, values, minlength=client.max() + 1)
        return values - (totals / np.maximum(np.bincount(client), 1))[client]

    return genomics.explained(less(score), less(outcome))


def _federated_scores(
    train: FederatedDataset, y: np.ndarray, new: np.ndarray
) -> dict[str, np.ndarray]:
    """Predictions `[new, outcomes]` of the federated methods."""
    from fedjax_med import genomics

    own = genomics.client_indicators(train)
    columns = []
    for outcome in y.T:
        found = genomics.linear_association(train, outcome, own)
        score = genomics.clumped_score(train, outcome, found, threshold=THRESHOLD)
        columns.append(score.predict(new))
    ridge = genomics.ridge_score(train, y, heritability=HERITABILITY, tolerance=1e-6)
    return {
        "federated, clumped": np.column_stack(columns),
        "federated, ridge": ridge.predict(new),
    }


def polygenic(dataset: FederatedDataset, seeds: Sequence[int]) -> Iterator[Record]:
    """Scores of a fifth of each population, from the other people."""
    y = _outcomes(dataset, seeds)
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    order = np.random.default_rng(0).permutation(len(y))
    place = np.empty(len(y), int)
    for i in range(dataset.num_clients):
        mine = order[client[order] == i]
        place[mine] = np.arange(len(mine)) * 5 // len(mine)
    tested = place == 0
    x = dataset.train.examples["x"]
    train = rows_of(dataset, ~tested)
    predicted = _federated_scores(train, y[~tested], x[tested])
    pooled = _dual_ridge(x[~tested], y[~tested], x[tested])
    predicted["pooled, ridge"] = pooled
    local, alone = np.zeros_like(pooled), np.zeros_like(pooled)
    for i in range(dataset.num_clients):
        mine, test = ~tested & (client == i), client[tested] == i
        local[test] = _dual_ridge(x[mine], y[mine], x[tested][test])
        for column in range(y.shape[1]):
            alone[test, column] = _local_clumped(x[mine], y[mine, column], x[tested][test])
    predicted["local, ridge"], predicted["local, clumped"] = local, alone
    predicted["trivial"] = np.zeros_like(pooled)
    apart = float(np.abs(predicted["federated, ridge"] - pooled).max())
    for method, score in predicted.items():
        for column, seed in enumerate(seeds):
            r2 = _within(score[:, column], y[tested, column], client[tested])
            yield {"case": "scores", "method": method, "seed": seed, "r2": r2}
    yield {"case": "ridge, federated less pooled", "largest": apart}


def _local_clumped(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Effects below the threshold in one hospital; its SNPs are nearly independent already."""
    from fedjax_med import genomics

    effect, se = _simple_regression(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        log10_p = genomics.log10_p_of_t(effect / se, float(len(y) - 2))
        chosen = np.flatnonzero(log10_p < np.log10(THRESHOLD))
    deviation = new[:, chosen] - np.nanmean(x[:, chosen], axis=0)
    return np.where(np.isnan(deviation), 0, deviation) @ effect[chosen]


def unseen(dataset: FederatedDataset, seeds: Sequence[int]) -> Iterator[Record]:
    """Scores of the people of each population from those of all others.

    Fitted to pooled people, which is quick with all SNPs; for the first population and seed the
    federated scores are made as well and compared.
    """
    y = _outcomes(dataset, seeds)
    client = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    x = dataset.train.examples["x"]
    for i, name in enumerate(dataset.client_names):
        here = client == i
        predicted = {
            "clumped": _pooled_clumped(x[~here], y[~here], client[~here], x[here]),
            "ridge": _dual_ridge(x[~here], y[~here], x[here]),
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
                r2 = _within(score[:, column], y[here, column], np.zeros(int(here.sum()), int))
                about = {"population": name, "method": method, "seed": seed}
                yield {"case": "unseen", **about, "r2": r2}


def _pooled_clumped(
    x: np.ndarray, y: np.ndarray, client: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """What `_federated_scores` clumps, of people at hand: an intercept for each hospital."""
    from fedjax_med import genomics

    mean = np.asarray(np.nanmean(x, axis=0, dtype=np.float64))
    g = np.where(np.isnan(x), 0, x - mean)
    _, number = np.unique(client, return_inverse=True)
    of_client = (number[:, None] == np.arange(number.max() + 1)).astype(np.float64)
    share = of_client / of_client.sum(axis=0)
    within, rest = g - of_client @ (share.T @ g), y - of_client @ (share.T @ y)
    squares = (within**2).sum(axis=0)
    squares = np.where(squares > 1e-9, squares, np.nan)[:, None]
    effect = within.T @ rest / squares
    freedom = float(len(x) - of_client.shape[1] - 1)
    residual = np.asarray((rest**2).sum(axis=0) - effect**2 * squares)
    log10_p = genomics.log10_p_of_t(effect / np.sqrt(residual / freedom / squares), freedom)
    scores = np.zeros((len(new), y.shape[1]))
    for column, values in enumerate(log10_p.T):
        taken: list[int] = []
        candidates = np.flatnonzero(values <= np.log10(THRESHOLD))
        for s in candidates[np.argsort(values[candidates])]:
            r2 = (g[:, taken].T @ g[:, s]) ** 2 / (g[:, taken] ** 2).sum(axis=0)
            if not (r2 / (g[:, s] @ g[:, s]) > 0.1).any():
                taken.append(int(s))
        deviation = np.where(np.isnan(new[:, taken]), 0, new[:, taken] - mean[taken])
        scores[:, column] = deviation @ effect[taken, column]
    return scores


def figures(dataset: FederatedDataset, snps: Any, components: Components, folder: Path) -> None:
    """The figures of `docs/genomics.md`."""
    from fedjax_med import genomics
    from fedjax_med.genomics import figures as draw

    own = genomics.scores(components, dataset)
    made = genomics.simulate_phenotype(
        dataset, heritability=HERITABILITY, site_shift=SITE_SHIFT, seed=0
    )
    nothing = genomics.simulate_phenotype(dataset, heritability=0.0, site_shift=SITE_SHIFT, seed=0)
    found = genomics.linear_association(dataset, made.outcome, genomics.client_indicators(dataset))
    bonferroni = 0.05 / len(found.log10_p)
    draw.manhattan(
        found.log10_p,
        snps.chromosome,
        snps.position,
        threshold=bonferroni,
        marked=made.causal,
        title="Twenty true effects, an intercept for each hospital",
    ).savefig(folder / "genomics-manhattan.png", dpi=110)
    draw.qq(
        {
            "no covariates": genomics.linear_association(dataset, nothing.outcome).log10_p,
            "ten components": genomics.linear_association(dataset, nothing.outcome, own).log10_p,
        },
        title="No SNP has an effect, populations differ",
    ).savefig(folder / "genomics-qq.png", dpi=110)
    draw.structure(own, dataset.train.sizes, dataset.client_names).savefig(
        folder / "genomics-structure.png", dpi=110
    )


def tables(results: Sequence[Record]) -> str:
    """Means over the seeds with 95 % intervals of Student's t, as Markdown."""
    from scipy import stats

    def interval(values: Sequence[float], digits: int) -> str:
        mean, n = np.mean(values), len(values)
        half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
        return f"{mean:.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"

    def rows(case: str, *keys: str) -> dict[tuple, list[Record]]:
        grouped: dict[tuple, list[Record]] = {}
        for r in results:
            if r["case"] == case:
                grouped.setdefault(tuple(r[key] for key in keys), []).append(r)
        return grouped

    lines = ["| outcome without effects | covariates | lambda |", "| --- | --- | --- |"]
    for (outcome, method), group in rows("null", "outcome", "method").items():
        lines.append(f"| {outcome} | {method} | {interval([r['lambda'] for r in group], 2)} |")
    lines += ["", "| analysis | true SNPs found of 20 | others |", "| --- | --- | --- |"]
    for (method,), group in rows("effects", "method").items():
        cells = (interval([r[key] for r in group], 1) for key in ("true", "false"))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines += ["", "| score | R² of other people of the populations |", "| --- | --- |"]
    for (method,), group in rows("scores", "method").items():
        lines.append(f"| {method} | {interval([r['r2'] for r in group], 3)} |")
    methods = ("clumped", "ridge")
    lines += ["", f"| population left out | {' | '.join(methods)} |", "| --- | --- | --- |"]
    left_out = rows("unseen", "population", "method")
    for name in dict.fromkeys(name for name, _ in left_out):
        cells = (interval([r["r2"] for r in left_out[name, m]], 3) for m in methods)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = records.parser("genomics", __doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--seeds", type=records.at_least(2), default=5, help="default: 5")
    parser.add_argument("--figures", metavar="FOLDER", help="draw the figures into a folder")
    parser.add_argument("--table", metavar="FILE", help="print the tables of a file of results")
    a = parser.parse_args(arguments)
    if a.table:
        print(tables([json.loads(line) for line in Path(a.table).read_text().splitlines()]))
        return
    output = records.Output(a.json, parser)
    from fedjax_med import genomics

    dataset, snps = genotypes()
    about = {"benchmark": "genomics", **records.environment()}
    parts = a.part or PARTS
    seeds = range(a.seeds)

    def write(made: Callable[[], Iterator[Record]], **more: Any) -> None:
        for record in made():
            output.write({**record, **more, **about})

    if {"structure", "association"} & set(parts) or a.figures:
        start = time.perf_counter()
        components = genomics.principal_components(dataset, NUM_COMPONENTS)
        seconds = time.perf_counter() - start
        if "structure" in parts:
            write(lambda: structure(dataset, components), seconds=seconds)
        if a.figures:
            figures(dataset, snps, components, Path(a.figures))
        for seed in seeds if "association" in parts else ():
            write(lambda seed=seed: association(dataset, components, seed), seed=seed)
    if "scores" in parts:
        write(lambda: polygenic(dataset, seeds))
    if "unseen" in parts:
        write(lambda: unseen(dataset, seeds))


if __name__ == "__main__":
    main()

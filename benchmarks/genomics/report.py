"""Figures and tables of the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.genomics.setting import Record
from fedjax_med.studies.genotype_references import HERITABILITY
from fedjax_med.studies.genotype_scores import SITE_SHIFT

if TYPE_CHECKING:
    from fedjax_med.data import FederatedDataset
    from fedjax_med.genomics import Components


def figures(dataset: FederatedDataset, snps: Any, components: Components, folder: Path) -> None:
    """The figures of `docs/genomics.md`."""
    from fedjax_med import genomics
    from fedjax_med.reporting import genomics_figures as draw

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

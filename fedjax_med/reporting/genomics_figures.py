"""Figures of associations and of population structure; all return a matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.genomics import genomic_control
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED, client_style

GENOME_WIDE = 5e-8  # the usual threshold for common variants
_SHADES = ("#0072B2", "#7fb2d6")


def manhattan(
    log10_p: np.ndarray,
    chromosome: Sequence[str],
    position: np.ndarray,
    *,
    threshold: float = GENOME_WIDE,
    marked: Sequence[int] | np.ndarray = (),
    title: str = "Associations",
) -> Figure:
    """Every SNP by its place in the genome and its p-value.

    Args:
      log10_p: `[snps]`, of an `Association`.
      chromosome: of every SNP; chromosomes come in the order in which they are met.
      position: `[snps]`, base pairs.
      threshold: p-value of the line.
      marked: positions in `log10_p` of SNPs to circle, such as those with a true effect.
      title: of the figure.

    Raises:
      ValueError: if lengths differ.
    """
    if not len(log10_p) == len(chromosome) == len(position):
        raise ValueError(
            f"log10_p, chromosome and position must have one entry for each SNP, got "
            f"{len(log10_p)}, {len(chromosome)} and {len(position)}."
        )
    names = list(dict.fromkeys(chromosome))
    own = np.array([names.index(name) for name in chromosome])
    lengths = np.array([position[own == i].max() for i in range(len(names))], np.float64)
    gap = 0.01 * lengths.sum()  # between chromosomes
    begins = np.concatenate([[0.0], np.cumsum(lengths + gap)[:-1]])
    at = position + begins[own]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        axes = figure.subplots()
        for shade in (0, 1):
            some = own % 2 == shade
            axes.plot(at[some], -log10_p[some], ".", color=_SHADES[shade], ms=3.5, rasterized=True)
        label = f"p = {threshold:.2g}"
        axes.axhline(-np.log10(threshold), color="#D55E00", lw=1, ls="--", label=label)
        marked = np.asarray(marked, np.int64)
        if marked.size:
            axes.plot(
                at[marked], -log10_p[marked], "o", mfc="none", mec=INK, ms=7, label="true effect"
            )
        shown = [i for i in range(len(names)) if lengths[i] > 0.012 * lengths.sum()]
        axes.set_xticks([begins[i] + lengths[i] / 2 for i in shown], [names[i] for i in shown])
        axes.tick_params(axis="x", labelsize=8, length=0)
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-gap, at.max() + gap)
        axes.set_ylim(0, None)
        axes.set_xlabel("chromosome")
        axes.set_ylabel("$-\\log_{10}\\,p$")
        axes.set_title(title)
        # Outside of the axes: SNPs may be anywhere in them.
        figure.legend(loc="outside right upper", frameon=False)
    return figure


def qq(log10_p: Mapping[str, np.ndarray], *, title: str = "Quantiles of p-values") -> Figure:
    """P-values against those of the uniform distribution, with lambda of genomic control.

    The grey band holds each order statistic with 95 % if no SNP is associated and SNPs are independent.

    Args:
      log10_p: `[snps]` by what to call the analysis; NaN is left out.
      title: of the figure.
    """
    from scipy.stats import beta

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        axes = figure.subplots()
        most = max(int((~np.isnan(values)).sum()) for values in log10_p.values())
        rank = np.unique(np.geomspace(1, most, 200).astype(int))
        expected = -np.log10((rank - 0.5) / most)
        low, high = (-np.log10(beta.ppf(q, rank, most - rank + 1)) for q in (0.975, 0.025))
        axes.fill_between(expected, low, high, color="#cbd2d9", lw=0)
        axes.plot([0, expected.max()], [0, expected.max()], color=MUTED, lw=1)
        for index, (name, values) in enumerate(log10_p.items()):
            ordered = np.sort(values[~np.isnan(values)])
            even = -np.log10((np.arange(ordered.size) + 0.5) / ordered.size)
            colour, _ = client_style(index)
            label = f"{name}, $\\lambda$ = {genomic_control(values):.2f}"
            axes.plot(even, -ordered, ".", color=colour, ms=4, label=label, rasterized=True)
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        axes.set_xlabel("$-\\log_{10}\\,p$ expected")
        axes.set_ylabel("$-\\log_{10}\\,p$ seen")
        axes.legend(frameon=False, loc="upper left", fontsize=8.5)
        axes.set_title(title)
    return figure


def structure(
    scores: np.ndarray,
    sizes: np.ndarray,
    names: Sequence[str],
    *,
    axes: tuple[int, int] = (0, 1),
    title: str = "Principal components of genotypes",
) -> Figure:
    """People by their scores on two components, coloured by client.

    Args:
      scores: `[N, components]`, client after client.
      sizes: people of each client.
      names: of the clients.
      axes: which two components, from 0.
      title: of the figure.
    """
    client = np.repeat(np.arange(len(sizes)), sizes)
    markers = ("o", "^", "s")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        plot = figure.subplots()
        for index, name in enumerate(names):
            some = client == index
            colour, _ = client_style(index)
            plot.plot(
                *scores[some][:, axes].T,
                markers[index // 6 % 3],
                color=colour,
                ms=4,
                mfc="none" if index >= 6 else colour,
                label=name,
            )
        plot.set_xlabel(f"component {axes[0] + 1}")
        plot.set_ylabel(f"component {axes[1] + 1}")
        plot.set_title(title)
        figure.legend(loc="outside right center", frameon=False)
    return figure

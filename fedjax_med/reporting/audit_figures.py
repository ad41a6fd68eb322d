"""Figures of an audit of privacy."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedjax_med.attacks.canaries import Audit
from fedjax_med.attacks.inversion_trials import Trial
from fedjax_med.attacks.membership import Membership
from fedjax_med.attacks.property_inference import PropertyInference
from fedjax_med.attacks.run_audit import Findings
from fedjax_med.reporting.figures import STYLE, as_svg
from fedjax_med.reporting.palette import INK, MUTED

_WITHOUT, _WITH = "#D55E00", "#0072B2"
_COLOURS = (_WITHOUT, _WITH)
_MOST_SHOWN = 6  # victims of a row


def audit_figures(findings: Findings) -> dict[str, str]:
    """Heading and `svg` element of every figure."""
    figures: dict[str, Figure] = {}
    if findings.audit is not None:
        figures["Claimed and audited epsilon"] = epsilon_figure(findings.audit)
    if findings.membership:
        figures["Membership inference"] = roc_figure(findings.membership)
    if findings.inversion:
        first = findings.inversion[0]
        draw = images_figure if first.originals.ndim == 4 else values_figure
        figures["Gradient inversion"] = draw(findings.inversion)
    if findings.shares:
        figures["Share of positives inferred from updates"] = shares_figure(findings.shares)
    return {
        heading: as_svg(figure, f"audit{number}")
        for number, (heading, figure) in enumerate(figures.items())
    }


def epsilon_figure(audit: Audit) -> Figure:
    """The claim beside the lower bounds, and the scores of canaries that they come from."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        bars, scores = figure.subplots(1, 2, width_ratios=[2, 3])
        confidence = f"{100 * audit.confidence:.0f} %"
        names = ["lower bound, any mechanism", "lower bound, Gaussian", "claimed"]
        values = [audit.rates, audit.gdp, audit.claimed or 0.0]
        colours = [MUTED, MUTED, _WITHOUT if audit.is_refuted else _WITH]
        bars.barh(names, values, color=colours)
        for place, value in enumerate(values):
            bars.text(value, place, f" {value:.2f}", va="center")
        bars.set_xlim(0, 1.2 * max(values) or 1)
        bars.grid(axis="y", visible=False)
        bars.set_xlabel(f"epsilon at delta {audit.delta:g} ({confidence} confidence)")
        bars.set_title("Refuted" if audit.is_refuted else "Not refuted")
        pairs = (("without the canary", audit.scores.excluded), ("with it", audit.scores.included))
        edges = np.histogram_bin_edges(np.concatenate([v for _, v in pairs]), bins=40)
        for (label, value), colour in zip(pairs, (MUTED, _WITH), strict=True):
            scores.hist(value, bins=edges.tolist(), alpha=0.6, color=colour, label=label)
        scores.set_xlabel("distance that the model went along the canary's direction")
        scores.set_ylabel("trainings")
        scores.set_title("Scores")
        scores.legend(frameon=False)
        return figure


def roc_figure(membership: Mapping[str, Membership]) -> Figure:
    """ROC curves of both attacks, on logarithmic axes: few false alarms are what an attacker wants."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        linear, logarithmic = figure.subplots(1, 2)
        for axes in (linear, logarithmic):
            for (name, found), colour in zip(membership.items(), _COLOURS, strict=False):
                for attack, result, dashes in (
                    ("LiRA", found.lira, "-"),
                    ("loss threshold", found.threshold, ":"),
                ):
                    label = f"{attack}, {name} (area {result.area.value:.3f})"
                    curve = result.curve
                    axes.plot(curve.false_alarms, curve.hits, dashes, color=colour, label=label)
            axes.plot([0, 1], [0, 1], "--", color=MUTED, lw=1, label="chance")
            axes.set_xlabel("others called members")
            axes.set_ylabel("members found")
        logarithmic.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1))
        logarithmic.plot([1e-3, 1], [1e-3, 1], "--", color=MUTED, lw=1)
        linear.set_title("All thresholds")
        logarithmic.set_title("Few false alarms")
        handles, labels = linear.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        return figure


def images_figure(trials: list[Trial]) -> Figure:
    """Reconstructed images, a row for each kind of message, below the true ones."""
    count = min(_MOST_SHOWN, *(len(trial.found) for trial in trials))
    rows = [("true image", trials[0].originals, None)]
    rows += [(trial.title, trial.found, float(np.median(trial.psnr))) for trial in trials]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.35 * len(rows)), layout="constrained")
        axes = np.atleast_2d(figure.subplots(len(rows), count, squeeze=False))
        low, high = trials[0].originals.min(), trials[0].originals.max()
        for row, (title, images, quality) in zip(axes, rows, strict=True):
            for place, image in zip(row, images[:count], strict=True):
                shown = image[..., 0] if image.shape[-1] == 1 else image
                place.imshow(shown, cmap="gray", vmin=low, vmax=high)
                place.set(xticks=[], yticks=[])
                place.grid(visible=False)
            label = title if quality is None else f"{title}\n{quality:.0f} dB"
            row[0].set_ylabel(label, rotation=0, ha="right", va="center")
        return figure


def values_figure(trials: list[Trial]) -> Figure:
    """True and reconstructed values of columns, a panel for each kind of message."""
    columns = 3
    rows = -(-len(trials) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.0 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        low = min(trial.originals.min() for trial in trials)
        high = max(trial.originals.max() for trial in trials)
        for place, trial in zip(axes, trials, strict=False):
            place.plot([low, high], [low, high], "-", color=MUTED, lw=1)
            place.plot(trial.originals.ravel(), trial.found.ravel(), ".", color=_WITH, alpha=0.6)
            place.set_title(f"{trial.title}: {np.median(trial.psnr):.0f} dB", fontsize=10)
            place.set(xlabel="true value", ylabel="reconstructed")
        for place in axes[len(trials) :]:
            place.set_visible(False)
        return figure


def shares_figure(shares: Mapping[str, PropertyInference]) -> Figure:
    """True and inferred shares of positives of hospitals."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(shares), squeeze=False)[0])
        for place, (name, found), colour in zip(axes, shares.items(), _COLOURS, strict=False):
            place.plot([0, 1], [0, 1], "-", color=MUTED, lw=1)
            place.plot(
                found.true, found.inferred, "o", color=colour, ms=4, alpha=0.6, mec=INK, mew=0.2
            )
            place.set_title(f"{name}: mean error {found.error.value:.3f}")
            place.set(xlabel="true share", ylabel="inferred share", xlim=(0, 1), ylim=(0, 1))
        return figure

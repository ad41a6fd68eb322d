"""Figures of models of visits: a patient's record with what it means, maps of codes, ROC of hospitals.

All return a matplotlib figure, drawn without a display or global state; `reporting.figures.as_svg` gives
what a page can hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedjax_med.evaluation import Predictions, binary_metrics
from fedjax_med.explanation.visits import CodeImportance
from fedjax_med.reporting.clinical_figures import drawn
from fedjax_med.reporting.figures import STYLE
from fedjax_med.reporting.palette import INK, MUTED, client_style

_ROW = 0.3  # inches of a line of text
_MARKERS = "osD^vP"
_MOST_CURVES = 8


def record_figure(
    record: Mapping[str, np.ndarray],
    parts: np.ndarray,
    code_names: Sequence[str],
    *,
    effects: np.ndarray | None = None,
    unit: str = "log odds",
    most: int = 14,
) -> Figure:
    """The record of one patient over time, with the part of each code in the model's output.

    Args:
      record: `codes` `[visits, codes]` and `visits` of one patient; `gap` [days], if there is one.
      parts: `[visits, codes]`, of `explanation.code_attributions`.
      code_names: of the codes.
      effects: `[visits]`, of `explanation.visit_effects`, drawn above.
      unit: of the model's output.
      most: codes that are shown, those with the largest parts.

    Raises:
      ValueError: if the patient has no code.
    """
    number = int(record["visits"])
    codes, parts = np.asarray(record["codes"])[:number], np.asarray(parts)[:number]
    given = codes > 0
    if not given.any():
        raise ValueError("record must have at least one code, got none.")
    day = np.cumsum(record["gap"][:number]) if "gap" in record else np.arange(number)
    weight = np.bincount(codes[given], np.abs(parts[given]))
    found = np.unique(codes[given])
    shown = found[np.argsort(-weight[found], kind="stable")][:most].tolist()
    shown.sort(key=lambda code: int(np.argmax((codes == code).any(axis=1))))
    place = {code: row for row, code in enumerate(shown)}
    visit, slot = np.nonzero(np.isin(codes, shown) & given)
    x, y = day[visit], np.array([place[code] for code in codes[visit, slot]])
    value = parts[visit, slot]
    limit = max(float(np.abs(value).max()), 1e-6)
    with matplotlib.rc_context(STYLE):
        rows = [1.0, 0.32 * len(shown) + 0.4] if effects is not None else [1.0]
        height = 1.3 + _ROW * len(shown) + (1.1 if effects is not None else 0)
        figure = Figure(figsize=(8.6, height), layout="constrained")
        grid = np.atleast_1d(figure.subplots(len(rows), 1, sharex=True, height_ratios=rows))
        axes = grid[-1]
        points = axes.scatter(
            x,
            y,
            c=value,
            s=30 + 170 * np.abs(value) / limit,
            cmap="RdBu_r",
            norm=TwoSlopeNorm(0, -limit, limit),
            edgecolors=MUTED,
            linewidths=0.6,
            zorder=3,
        )
        for d in day:
            axes.axvline(d, color="#e4e7eb", lw=1, zorder=0)
        axes.set_yticks(range(len(shown)), [code_names[code] for code in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel("days since the first visit" if "gap" in record else "visit")
        if "gap" not in record:
            axes.set_xticks(day, [str(v + 1) for v in range(number)])
        bar = figure.colorbar(points, ax=axes, shrink=0.9, pad=0.02)
        bar.set_label(f"part of the code [{unit}]", color=INK)
        bar.outline.set_visible(False)
        if effects is not None:
            top = grid[0]
            top.vlines(day, 0, effects[:number], color=MUTED, lw=2.5)
            top.plot(day, effects[:number], "o", color=INK, markersize=5)
            top.axhline(0, color=MUTED, lw=0.8)
            top.set_ylabel("effect\nof the visit", fontsize=9)
        hidden = len(found) - len(shown)
        title = "What the model makes of the record of one patient"
        grid[0].set_title(title + (f" ({hidden} codes not shown)" if hidden else ""))
        return drawn(figure)


def code_map(
    embeddings: np.ndarray,
    group: Sequence[str],
    *,
    title: str = "What the model learned of the codes",
) -> Figure:
    """Embeddings of codes on the plane of their two main components, coloured by what they stand for.

    Args:
      embeddings: `[codes, dim]`, without the padding.
      group: what each code stands for; "" for codes that are drawn small and without a colour.
      title: of the figure.

    Raises:
      ValueError: if there are fewer than 2 codes, or another number of groups.
    """
    embeddings = np.asarray(embeddings, np.float64)
    if len(embeddings) < 2 or len(group) != len(embeddings):
        raise ValueError(
            f"embeddings must be of at least 2 codes with a group each, got {len(embeddings)} and "
            f"{len(group)}."
        )
    centred = embeddings - embeddings.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    # A component has no sign of its own; its largest part is drawn to the right or above.
    sign = np.sign(left[np.argmax(np.abs(left), axis=0), np.arange(left.shape[1])])
    place = (left * sign * size)[:, :2]
    if place.shape[1] < 2:
        place = np.pad(place, ((0, 0), (0, 1)))
    share = np.pad(size**2, (0, 2))[:2] / max(float((size**2).sum()), 1e-300)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 5.2), layout="constrained")
        axes = figure.subplots()
        names = [name for name in dict.fromkeys(group) if name]
        kind = np.array(group)
        other = kind == ""
        axes.plot(*place[other].T, ".", color="#9aa5b1", markersize=5, zorder=2)
        handles = []
        for number, name in enumerate(names):
            colour, marker = client_style(number)[0], _MARKERS[number // 6 % len(_MARKERS)]
            axes.plot(*place[kind == name].T, marker, color=colour, markersize=7, zorder=3)
            handles.append(Line2D([], [], ls="", marker=marker, color=colour, label=name))
        if other.any():
            handles.append(Line2D([], [], ls="", marker=".", color="#9aa5b1", label="nothing"))
        axes.set_xlabel(f"first main component ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"second ({share[1]:.0%})")
        axes.set_title(title)
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=9)
        return drawn(figure)


def roc_figure(
    predictions: Predictions, *, title: str = "ROC of all patients and hospitals"
) -> Figure:
    """Receiver operating characteristic of all patients and of the largest hospitals, with their areas.

    Args:
      predictions: probabilities `[N]` and labels 0 or 1.
      title: of the figure.

    Raises:
      ValueError: if there is no patient with, or none without the outcome.
    """
    labels = np.asarray(predictions.labels) > 0
    if labels.all() or not labels.any():
        raise ValueError("predictions must have patients with and without the outcome.")
    auroc = binary_metrics()["auroc"]
    count = np.bincount(predictions.client, minlength=len(predictions.client_names))
    largest = [int(i) for i in np.argsort(-count, kind="stable") if count[i]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 5.0), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
        handles = []

        def curve(part: Predictions, name: str, colour: str, style: str, width: float) -> None:
            positive = np.asarray(part.labels) > 0
            if positive.all() or not positive.any():
                return
            area = float(auroc.compute(part.outputs, part.labels, np.ones(part.num_patients)))
            axes.plot(*_roc(np.asarray(part.outputs), positive), style, color=colour, lw=width)
            label = f"{name}, n = {part.num_patients:,}: {area:.3f}"
            handles.append(Line2D([], [], ls=style, color=colour, lw=width, label=label))

        curve(predictions, "all patients", INK, "-", 2.6)
        for i in largest[:_MOST_CURVES]:
            colour, style = client_style(i)
            own = predictions.take(np.flatnonzero(predictions.client == i))
            curve(own, predictions.client_names[i], colour, style, 1.3)
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
        axes.set_aspect("equal")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        hidden = max(0, len(largest) - _MOST_CURVES)
        axes.set_title(title + (f" ({hidden} not shown)" if hidden else ""))
        figure.legend(
            handles=handles, loc="outside right upper", frameon=False, fontsize=9, title="AUROC"
        )
        return drawn(figure)


def code_importance_figure(importance: CodeImportance, metric: str, *, most: int = 15) -> Figure:
    """Bars of the federated importance of groups of codes, marks of the hospitals.

    Args:
      importance: of the groups.
      metric: its name.
      most: groups that are shown.
    """
    order = np.argsort(-np.nan_to_num(importance.federated, nan=-np.inf), kind="stable")[:most]
    place = np.arange(len(order))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.5 + _ROW * len(order)), layout="constrained")
        axes = figure.subplots()
        axes.barh(place, importance.federated[order], height=0.62, color="#cbd2d9")
        for name, own in importance.per_hospital.items():
            axes.plot(own[order], place, "|", color=INK, markersize=9, alpha=0.55, label=name)
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks(place, [importance.groups[int(k)] for k in order])
        axes.set_ylim(len(order) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{metric} lost without the codes; lines are hospitals")
        total = sum(importance.num_patients.values())
        axes.set_title(f"Importance of codes (n = {total:,}, {metric} {importance.baseline:.3f})")
        return drawn(figure)


def _roc(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1), a point for each score that differs."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(positive[order])[ends]
    false = ends + 1 - true
    return np.append(0, false / (~positive).sum()), np.append(0, true / positive.sum())

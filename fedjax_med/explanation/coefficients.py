"""Coefficients of linear models with confidence intervals, odds ratios and hazard ratios.

What leaves a hospital, for a model of p parameters: its number of patients, and the sums over its
patients of the losses `[]`, of their gradients `[p]`, of their Hessians `[p, p]` and of the outer
products of the gradients `[p, p]`, and of the squares of its columns `[features]`. The federated result needs their sums over hospitals only (so
secure aggregation will do); the results per hospital need those of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from scipy import stats

from fedjax_med.data import FederatedDataset
from fedjax_med.data.standardize import Standardizer
from fedjax_med.engine import Variables
from fedjax_med.engine.contracts import Loss
from fedjax_med.evaluation.intervals import check_level
from fedjax_med.explanation._linear import Named, name_parameters
from fedjax_med.explanation._plain import plain
from fedjax_med.explanation._rows import rows_of
from fedjax_med.explanation._sums import Sums, hospital_sums

Variance = Literal["information", "sandwich"]

_BATCH_SIZE = 4096
# Of a Hessian scaled to ones on its diagonal: directions below say nothing about the parameters.
_SMALLEST_EIGENVALUE = 1e-10
_SMALLEST_CURVATURE = 1e-12


class CoefficientTable(NamedTuple):
    """Coefficients `[K]` with their intervals, in natural units; NaN where not determined.

    Attributes:
      value: change of the output (log odds, log hazard, the quantity) per unit of the column.
      se: standard error.
      low: lower end of the confidence interval.
      high: upper end.
      p_value: of the hypothesis that the coefficient is 0, two-sided.
    """

    value: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray

    def ratios(self) -> CoefficientTable:
        """Odds ratios of a logistic and hazard ratios of a Cox model: everything but `se` and `p_value` exponentiated."""
        with np.errstate(over="ignore"):
            value, low, high = np.exp(self.value), np.exp(self.low), np.exp(self.high)
        return self._replace(value=value, low=low, high=high)


@dataclasses.dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients of a linear model.

    Attributes:
      names: of the coefficients `[K]`.
      is_intercept: bool `[K]`.
      federated: from the sums over all hospitals.
      per_hospital: by name, each from its own sums: one Newton step from the common model to the
        hospital's own optimum, NaN where its patients do not determine a coefficient.
      covariance: of the federated coefficients, float64 `[K, K]`.
      num_patients: by hospital.
      steps_left: length of the Newton step from the model to the optimum, in standard errors, of the
        coefficient where it is longest. Intervals are those of a fit: much above 0.1, train on.
      level: of confidence.
      variance: how standard errors were made.
    """

    names: tuple[str, ...]
    is_intercept: np.ndarray
    federated: CoefficientTable
    per_hospital: Mapping[str, CoefficientTable]
    covariance: np.ndarray
    num_patients: Mapping[str, int]
    steps_left: float
    level: float
    variance: str

    def as_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, texts and numbers for JSON; None where not determined."""
        return plain(self)


def coefficients(
    loss: Loss,
    variables: Variables,
    dataset: FederatedDataset,
    *,
    split: str = "train",
    variance: Variance = "information",
    level: float = 0.95,
    standardizer: Standardizer | None = None,
    ridge: float = 0.0,
    estimate_dispersion: bool = False,
    whole_hospitals: bool = False,
    batch_size: int = _BATCH_SIZE,
) -> Coefficients:
    """Coefficients of a trained linear model and their Wald intervals, from sums of hospitals.

        information   V = A^-1 H A^-1        H = sum of Hessians, A = H + ridge (not of the bias)
        sandwich      V = A^-1 S A^-1        S = sum of outer products of gradients

    The first holds if the model is right, the second also if it is not (White, 1982). Both take
    patients as independent. Sums are in float64.

    Args:
      loss: of the task, `(variables, batch) -> (losses, state)`; the negative log-likelihood of each
        patient, as in `tasks.binary_classification(...).loss`.
      variables: the model, trained to the optimum (see `Coefficients.steps_left`).
      dataset: the patients that it was trained on, standardised as they were.
      split: which of them.
      variance: "information" or "sandwich". Terms of a Cox likelihood are not those of single
        patients, so its sandwich is not the robust variance of Lin and Wei (1989).
      level: of confidence.
      standardizer: what `x` was standardised with; coefficients are then per natural unit.
      ridge: penalty `ridge / 2 |kernel|^2` that was added to the sum of the losses over all patients.
      estimate_dispersion: for half squared errors, whose unit is that of the outcome: V is scaled with
        2 sum(loss) / (N - p), and intervals are those of Student's t.
      whole_hospitals: all patients of a hospital in one batch, as a Cox likelihood needs it, which is
        then the one stratified by hospital.
      batch_size: patients at once otherwise.

    Raises:
      ValueError: names the argument that does not fit.

    References:
      White, "Maximum Likelihood Estimation of Misspecified Models", Econometrica 50, 1982.
      Gray, JASA 87, 1992, section 2.3, for the variance with a penalty.
    """
    check_level(level)
    if not ridge >= 0:
        raise ValueError(f"ridge must not be negative, got {ridge!r}.")
    arrays = rows_of(dataset, split)
    if not np.isfinite(arrays.examples["x"]).all():
        raise ValueError("x must have no missing values, got NaN or infinity; impute them first.")
    named = name_parameters(variables.params, dataset.feature_names, standardizer)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    size = int(arrays.sizes.max())
    size = size if whole_hospitals else min(size, batch_size)
    sums = [
        hospital_sums(loss, variables, arrays.client(i), size) for i in range(arrays.num_clients)
    ]
    total = Sums(*(np.sum(field, axis=0) for field in zip(*sums, strict=True)))
    flat = np.concatenate([np.ravel(np.float64(x)) for x in jax.tree.leaves(variables.params)])
    options = (named, flat, ridge, variance, estimate_dispersion, level)
    federated, covariance, steps_left = _table(total, *options, newton_step=False)
    return Coefficients(
        named.names,
        named.is_intercept,
        federated,
        {
            name: _table(own, *options, newton_step=True)[0]
            for name, own in zip(dataset.client_names, sums, strict=True)
        },
        covariance,
        dict(zip(dataset.client_names, arrays.sizes.tolist(), strict=True)),
        steps_left,
        level,
        variance,
    )


def coefficients_of_runs(
    variables: Variables,
    feature_names: Sequence[str] = (),
    *,
    standardizer: Standardizer | None = None,
    level: float = 0.95,
) -> Coefficients:
    """Coefficients over several runs: their mean, standard deviation and quantiles.

    Of runs on bootstrap samples this is the percentile interval; of runs that differ in their seed, the
    range over seeds, which says nothing about other patients. `p_value` is NaN.

    Args:
      variables: of linear models, leaves `[runs, ...]`, as `Run.variables` of experiments.
      feature_names: of the columns.
      standardizer: what `x` was standardised with.
      level: share of the runs inside of the interval.

    Raises:
      ValueError: if there are fewer than two runs, or it names the argument that does not fit.
    """
    check_level(level)
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(variables.params)]
    num = len(leaves[0]) if leaves and leaves[0].ndim else 0
    if num < 2 or any(x.shape[:1] != (num,) for x in leaves):
        raise ValueError("variables must have a leading axis of at least two runs.")
    one = jax.tree.map(lambda x: np.asarray(x)[0], variables.params)
    named = name_parameters(one, feature_names, standardizer)
    values = np.concatenate([x.reshape(num, -1) for x in leaves], axis=1) @ named.matrix.T
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    nothing = np.full(values.shape[1], np.nan)
    table = CoefficientTable(values.mean(0), values.std(0, ddof=1), low, high, nothing)
    covariance = np.atleast_2d(np.cov(values, rowvar=False))
    intercept = named.is_intercept
    return Coefficients(
        named.names, intercept, table, {}, covariance, {}, float("nan"), level, "over runs"
    )


def _table(
    sums: Sums,
    named: Named,
    flat: np.ndarray,
    ridge: float,
    variance: Variance,
    estimate_dispersion: bool,
    level: float,
    *,
    newton_step: bool,
) -> tuple[CoefficientTable, np.ndarray, float]:
    """Coefficients, their covariance, and the longest Newton step in standard errors."""
    penalty = ridge * (named.feature >= 0)
    bread = sums.hessian + np.diag(penalty)
    meat = sums.hessian if variance == "information" else sums.squares
    # Scaled to ones on the diagonal, so that units of columns do not decide what is singular.
    diagonal = np.diag(bread)
    # What a curvature of 1 per patient would be; far below, there is rounding and nothing else.
    whole = np.where(named.feature < 0, sums.count, sums.columns[named.feature])
    unit = np.sqrt(np.where(diagonal > _SMALLEST_CURVATURE * whole, diagonal, np.inf))
    values, vectors = np.linalg.eigh(bread / np.outer(unit, unit))  # 0 where there is none
    known = values > _SMALLEST_EIGENVALUE * max(1.0, values[-1])
    vectors = vectors[:, known]
    inverse = (vectors / values[known]) @ vectors.T / np.outer(unit, unit)
    contrast = named.matrix / np.where(np.isinf(unit), 1.0, unit)
    outside = contrast - (contrast @ vectors) @ vectors.T
    lengths = np.linalg.norm(contrast, axis=1)
    determined = np.linalg.norm(outside, axis=1) <= 1e-6 * lengths
    dispersion, quantile, tail = 1.0, stats.norm.ppf, stats.norm.sf
    if estimate_dispersion:
        degrees = float(sums.count - known.sum())
        determined &= degrees > 0
        degrees = max(degrees, 1.0)
        dispersion = 2 * float(sums.loss) / degrees if variance == "information" else 1.0
        quantile, tail = partial(stats.t.ppf, df=degrees), partial(stats.t.sf, df=degrees)
    covariance = dispersion * named.matrix @ inverse @ meat @ inverse @ named.matrix.T
    blank = np.where(determined, 0.0, np.nan)
    covariance = covariance + blank[:, None] + blank[None, :]
    se = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    se = np.where(se > 0, se, np.nan)
    step = named.matrix @ inverse @ (sums.gradient + penalty * flat)
    value = named.matrix @ flat
    if newton_step:
        value = np.where(np.isnan(se), np.nan, value - step)
    half = quantile(0.5 + level / 2) * se
    p_value = 2 * tail(np.abs(value) / se)
    far = np.abs(step) / se
    longest = float(np.nanmax(far)) if (~np.isnan(far)).any() else float("nan")
    return CoefficientTable(value, se, value - half, value + half, p_value), covariance, longest

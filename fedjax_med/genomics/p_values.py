"""P-values of associations as logarithms, and genomic control.

References:
  Devlin and Roeder, "Genomic control for association studies", Biometrics 55, 1999.
  https://doi.org/10.1111/j.0006-341X.1999.00997.x
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

_MEDIAN_CHI2 = 0.454936423119572  # of one degree of freedom: (ndtri(0.75))^2


class Association(NamedTuple):
    """Associations of SNPs with an outcome, float64 `[snps]`.

    NaN where the SNP does not vary, or not beyond what covariates say.

    Attributes:
      effect: change of the outcome, or of its log odds, per copy of the counted allele.
      se: standard error.
      statistic: t or z, `effect / se`.
      log10_p: logarithm to base 10 of the two-sided p-value, exact where the p-value itself would
        be 0 as a number of 64 bits.
    """

    effect: np.ndarray
    se: np.ndarray
    statistic: np.ndarray
    log10_p: np.ndarray

    @property
    def p_value(self) -> np.ndarray:
        """Two-sided."""
        return 10.0**self.log10_p


def log10_p_of_z(z: np.ndarray) -> np.ndarray:
    """Two-sided, of standard normal statistics."""
    return (np.log(2) + special.log_ndtr(-np.abs(z))) / np.log(10)


def log10_p_of_t(t: np.ndarray, freedom: float) -> np.ndarray:
    """Two-sided, of Student's t with `freedom` degrees of freedom.

    With x = freedom / (freedom + t^2) it is the regularised incomplete beta function
    `I_x(freedom / 2, 1/2)`, for small x by its series (Abramowitz and Stegun 26.5.4), as the value
    itself is 0 in 64 bits from p = 1e-308 on.
    """
    t = np.asarray(t, np.float64)
    a = freedom / 2
    x = freedom / (freedom + t**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        direct = np.log(special.betainc(a, 0.5, x))
        tail = a * np.log(x) + 0.5 * np.log1p(-x) - np.log(a) - special.betaln(a, 0.5)
        tail = tail + np.log(special.hyp2f1(a + 0.5, 1.0, a + 1, x))
    return np.where(direct > -600, direct, tail) / np.log(10)


def genomic_control(log10_p: np.ndarray) -> float:
    """Lambda: the median of the statistics over its expectation if nothing were associated.

    Statistics are chi-squared with one degree of freedom of the same p-values; NaN is left out. 1 under
    the null; more where structure, relatives or many true effects inflate it.

    Raises:
      ValueError: if there is no p-value.
    """
    known = np.asarray(log10_p)[~np.isnan(log10_p)]
    if known.size == 0:
        raise ValueError("log10_p must have values for genomic control, got none.")
    # The median commutes with what is monotone, so that only one quantile is computed.
    z = special.ndtri(10.0 ** np.median(known) / 2)
    return float(z**2 / _MEDIAN_CHI2)

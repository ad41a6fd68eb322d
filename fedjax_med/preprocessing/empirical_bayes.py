"""The empirical Bayes estimates of ComBat, from per-site summaries; NumPy only.

References:
  Johnson, Li and Rabinovic, "Adjusting batch effects in microarray expression data using empirical
  Bayes methods", Biostatistics 8, 2007. https://doi.org/10.1093/biostatistics/kxj037
"""

from __future__ import annotations

import numpy as np

_TOLERANCE = 1e-13
_MAX_ITERATIONS = 10_000


def shrunk_effects(
    count: np.ndarray, location: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale effects of one site, shrunk towards what its columns have in common.

    With n, g and d the site's count, mean and variance of the standardised values of a column, and
    the priors of section 3.2 of Johnson et al. estimated by the method of moments over columns,

        gamma = (n t2 g + delta g_bar) / (n t2 + delta)
        delta = (s2 (n - 1) d / 2 + s2 n (g - gamma)^2 / 2 + m s2 + m^3) / (s2 n / 2 + s2 + m^2)

    until neither moves: their equations with `(m^2 + 2 s2) / s2` and `(m^3 + m s2) / s2` put in for
    the shape and scale of the inverse gamma prior, and multiplied by s2, the variance of d over
    columns, so that columns of equal variance divide nothing by zero.

    Args:
      count: float64 `[columns]`, each at least 2.
      location: float64 `[columns]`, g.
      scale: float64 `[columns]`, d, divided by `n - 1`.

    Returns:
      gamma and delta, float64 `[columns]`. With a single column there is nothing to share: g, d.
    """
    if len(count) < 2:
        return location, np.where(scale > 0, scale, 1.0)
    g_bar, t2 = location.mean(), location.var(ddof=1)
    m, s2 = scale.mean(), scale.var(ddof=1)
    if m == 0:  # constant in all columns
        return location, np.ones_like(scale)
    gamma, delta = location, scale
    for _ in range(_MAX_ITERATIONS):
        weight = count * t2
        together = weight + delta
        # 0 / 0 only where all columns say the same and this one does not vary: then it is theirs.
        new_gamma = np.divide(
            weight * location + delta * g_bar,
            together,
            out=np.full_like(location, g_bar),
            where=together > 0,
        )
        squares = (count - 1) * scale + count * (location - new_gamma) ** 2
        new_delta = (s2 * squares / 2 + m * s2 + m**3) / (s2 * count / 2 + s2 + m**2)
        moved = max(
            np.max(np.abs(new_gamma - gamma) / np.maximum(np.abs(new_gamma), np.sqrt(t2) + 1e-300)),
            np.max(np.abs(new_delta - delta) / new_delta),
        )
        gamma, delta = new_gamma, new_delta
        if moved <= _TOLERANCE:
            break
    return gamma, delta

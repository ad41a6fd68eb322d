"""Analyses of people whose genotypes are at hand: what federated ones are compared with."""

from __future__ import annotations

import numpy as np

from fedjax_med import genomics

THRESHOLD = 1e-4  # largest p-value of a SNP that counts in a score
HERITABILITY = 0.5
NUM_COMPONENTS = 10


def axes_of(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leading right singular vectors and values, by way of the products of people."""
    squared, left = np.linalg.eigh(z @ z.T)
    singular = np.sqrt(squared[::-1][:NUM_COMPONENTS])
    return z.T @ left[:, ::-1][:, :NUM_COMPONENTS] / singular, singular


def simple_regression(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Effects and standard errors of each SNP alone, missing genotypes taken for the mean."""
    called = np.maximum((~np.isnan(x)).sum(axis=0), 1)
    g = x - np.nansum(x, axis=0, dtype=np.float64) / called
    g, y = np.where(np.isnan(g), 0, g), y - y.mean()
    squares = (g**2).sum(axis=0)
    squares = np.where(squares > 1e-9, squares, np.nan)
    effect = g.T @ y / squares
    residual = np.maximum(y @ y - effect**2 * squares, 0)
    return effect, np.sqrt(residual / (len(y) - 2) / squares)


def dual_ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
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


def local_clumped(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Effects below the threshold in one hospital; its SNPs are nearly independent already."""
    effect, se = simple_regression(x, y)
    with np.errstate(divide="ignore", invalid="ignore"):
        log10_p = genomics.log10_p_of_t(effect / se, float(len(y) - 2))
        chosen = np.flatnonzero(log10_p < np.log10(THRESHOLD))
    deviation = new[:, chosen] - np.nanmean(x[:, chosen], axis=0)
    return np.where(np.isnan(deviation), 0, deviation) @ effect[chosen]


def pooled_clumped(x: np.ndarray, y: np.ndarray, client: np.ndarray, new: np.ndarray) -> np.ndarray:
    """What `_federated_scores` clumps, of people at hand: an intercept for each hospital."""
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

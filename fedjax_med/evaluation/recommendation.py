"""How good a ranked list is: of drugs for a patient, of entities for a question to a graph.

Scores are float `[N, items]`, the better the higher. Ties are worth their average over all orders, so a
constant score is worth what a random order is worth, and the order of columns helps nobody.
"""

import numpy as np
from scipy.stats import rankdata


def spearman(score: np.ndarray, truth: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Spearman's correlation of every column over its rows, as of every drug over patients.

    Args:
      score: `[N, items]`.
      truth: `[N, items]`.
      counts: bool `[N, items]`, which entries are known; all if None.

    Returns:
      float64 `[items]`; NaN where fewer than two entries count, or a side is constant.
    """
    score, truth, counts = _checked(score, truth, counts)
    out = np.full(score.shape[1], np.nan)
    for item in range(score.shape[1]):
        rows = counts[:, item]
        if rows.sum() < 2:
            continue
        a, b = (rankdata(side[rows, item]) for side in (score, truth))
        a, b = a - a.mean(), b - b.mean()
        norm = np.sqrt((a @ a) * (b @ b))
        out[item] = a @ b / norm if norm > 0 else np.nan
    return out


def precision_at_k(
    score: np.ndarray, truth: np.ndarray, k: int, counts: np.ndarray | None = None
) -> np.ndarray:
    """The share of the `k` recommended items of every row that are among its `k` best.

    Args:
      score: `[N, items]`, by which items are recommended.
      truth: `[N, items]`, the higher the better.
      k: length of the list.
      counts: bool `[N, items]`, which entries are known; all if None.

    Returns:
      float64 `[N]`; NaN where a row has `k` known entries or fewer: every list would do.

    Raises:
      ValueError: if `k` is below 1, or shapes differ.
    """
    _check_k(k)
    score, truth, counts = _checked(score, truth, counts)
    worth = (np.arange(score.shape[1]) < k).astype(np.float64)
    out = np.full(len(score), np.nan)
    for row, known in enumerate(counts):
        if known.sum() > k:
            listed = _worth_of_places(score[row, known], worth)
            best = _worth_of_places(truth[row, known], worth)
            out[row] = listed @ best / k
    return out


def ndcg_at_k(
    score: np.ndarray, gain: np.ndarray, k: int, counts: np.ndarray | None = None
) -> np.ndarray:
    """Normalised discounted cumulative gain of the first `k` items of every row.

        sum_{i <= k} gain[i-th by score] / log2(i + 1), over the same sum in the order of gains

    Args:
      score: `[N, items]`, by which items are recommended.
      gain: `[N, items]`, what an item is worth, not negative.
      k: length of the list.
      counts: bool `[N, items]`, which entries are known; all if None.

    Returns:
      float64 `[N]` in [0, 1]; NaN where no entry of a row is known, or all gains are 0.

    Raises:
      ValueError: if `k` is below 1, a known gain is negative, or shapes differ.

    References:
      Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20,
      2002. https://doi.org/10.1145/582415.582418
    """
    _check_k(k)
    score, gain, counts = _checked(score, gain, counts)
    if (gain[counts] < 0).any():
        raise ValueError(f"gain must not be negative, got {gain[counts].min()}.")
    place = np.arange(score.shape[1])
    worth = np.where(place < k, 1 / np.log2(place + 2), 0.0)
    out = np.full(len(score), np.nan)
    for row, known in enumerate(counts):
        own = gain[row, known]
        best = np.sort(own)[::-1] @ worth[: len(own)]
        if best > 0:
            out[row] = own @ _worth_of_places(score[row, known], worth) / best
    return out


def filtered_ranks(
    score: np.ndarray, answer: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """The rank of the answer among the items that are not right answers themselves, from 1.

        1 + #{items above the answer} + #{items at its score} / 2

    A model that scores all alike gets the middle. A score that is not a number puts an answer
    last, so a diverged model is not the best one.

    Args:
      score: `[N, items]`.
      answer: integers `[N]`, the right item of every row.
      known: bool `[N, items]`, items that are right too, or no candidates, and left out; the answer
        itself may be marked. None leaves nothing out (raw ranks).

    Returns:
      float64 `[N]`.

    References:
      Bordes et al., NeurIPS 2013, section 4.2 ("filtered").
      https://papers.nips.cc/paper/5071-translating-embeddings-for-modeling-multi-relational-data
    """
    score, answer = np.asarray(score, np.float64), np.asarray(answer)
    if score.ndim != 2 or answer.shape != score.shape[:1]:
        raise ValueError(
            f"score must be [N, items] and answer [N], got {list(score.shape)} and "
            f"{list(answer.shape)}."
        )
    rows = np.arange(len(score))
    others = np.ones(score.shape, bool) if known is None else ~np.asarray(known, bool)
    others[rows, answer] = False
    own = score[rows, answer][:, None]
    above = (others & ~(score <= own)).sum(1)
    return 1.0 + above + (others & (score == own)).sum(1) / 2


def mean_reciprocal_rank(ranks: np.ndarray) -> float:
    """Mean of `1 / rank`; NaN without ranks."""
    return float(np.mean(1 / np.asarray(ranks, np.float64))) if len(ranks) else float("nan")


def hits_at_k(ranks: np.ndarray, k: int) -> float:
    """The share of ranks that are at most `k`; NaN without ranks.

    Raises:
      ValueError: if `k` is below 1.
    """
    _check_k(k)
    return float(np.mean(np.asarray(ranks) <= k)) if len(ranks) else float("nan")


def _worth_of_places(score: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """What the place of each item is worth `[n]`, tied items sharing their places alike."""
    order = np.argsort(-score, kind="stable")
    _, group, size = np.unique(-score[order], return_inverse=True, return_counts=True)
    shared = np.bincount(group, worth[: len(score)]) / size
    out = np.empty(len(score))
    out[order] = shared[group]
    return out


def _checked(
    score: np.ndarray, truth: np.ndarray, counts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    score, truth = np.asarray(score, np.float64), np.asarray(truth, np.float64)
    counts = np.ones(score.shape, bool) if counts is None else np.asarray(counts, bool)
    if score.ndim != 2 or not score.shape == truth.shape == counts.shape:
        raise ValueError(
            f"all arrays must have one shape [N, items], got {list(score.shape)}, "
            f"{list(truth.shape)} and {list(counts.shape)}."
        )
    if not np.isfinite(score[counts]).all() or not np.isfinite(truth[counts]).all():
        raise ValueError("entries that count must be finite, got one that is not.")
    return score, truth, counts


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k!r}.")

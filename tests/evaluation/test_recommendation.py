"""Ranked lists against definitions written out, scipy, and numbers worked by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedjax_med.evaluation.recommendation import (
    filtered_ranks,
    hits_at_k,
    mean_reciprocal_rank,
    ndcg_at_k,
    precision_at_k,
    spearman,
)
from tests.draws import draws

# Few values, so that ties happen.
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=3, max_size=5
)


def average_over_orders(score, value):
    """The mean of `value(order)` over all orders that put higher scores first."""
    orders = [
        order
        for order in itertools.permutations(range(len(score)))
        if all(score[a] >= score[b] for a, b in itertools.pairwise(order))
    ]
    return np.mean([value(order) for order in orders])


@draws(30, 300)
@given(rows=ROWS, k=st.integers(1, 3))
def test_lists_are_worth_their_average_over_the_orders_of_ties(rows, k):
    score, truth, known = (np.array(column) for column in zip(*rows, strict=True))
    s, t = score[known], truth[known]
    precision = precision_at_k(score[None], truth[None], k, known[None])[0]
    ndcg = ndcg_at_k(score[None], truth[None], k, known[None])[0]
    if known.sum() <= k:
        assert np.isnan(precision)
    else:
        want = average_over_orders(
            s, lambda a: average_over_orders(t, lambda b: len(set(a[:k]) & set(b[:k])) / k)
        )
        np.testing.assert_allclose(precision, want, rtol=1e-12)  # float64, a handful of additions
    if not t.any():
        assert np.isnan(ndcg)
    else:

        def gain(order):
            return sum(t[item] / np.log2(place + 2) for place, item in enumerate(order[:k]))

        best = gain(np.argsort(-t, kind="stable"))
        np.testing.assert_allclose(ndcg, average_over_orders(s, gain) / best, rtol=1e-12)


def test_ndcg_of_a_list_worked_by_hand():
    # Gains 3, 2, 0 listed as 2, 0, 3: (2 + 3 / 2) / (3 + 2 / log2(3)) at 3, and 2 / (3 + ...) at 2.
    score, gain = np.array([[1.0, 3.0, 2.0]]), np.array([[3.0, 2.0, 0.0]])
    best = 3 + 2 / np.log2(3)
    np.testing.assert_allclose(ndcg_at_k(score, gain, 3), [3.5 / best], rtol=1e-12)
    np.testing.assert_allclose(ndcg_at_k(score, gain, 2), [2 / best], rtol=1e-12)
    assert precision_at_k(score, gain, 1).tolist() == [0.0]
    assert precision_at_k(score, gain, 2).tolist() == [0.5]


def test_spearman_is_scipys_of_what_is_known():
    rng = np.random.default_rng(0)
    score, truth = rng.integers(0, 4, (2, 12, 3)).astype(float)
    known = rng.random((12, 3)) < 0.7
    score[:, 2] = 1.0  # constant, so not defined
    got = spearman(np.where(known, score, np.nan), truth, known)
    for item in range(2):
        rows = known[:, item]
        want = stats.spearmanr(score[rows, item], truth[rows, item])[0]
        np.testing.assert_allclose(got[item], want, rtol=1e-12)
    assert np.isnan(got[2])
    assert np.isnan(spearman(score, truth, known & (np.arange(12) == 0)[:, None])).all()


def test_filtered_ranks_worked_by_hand():
    score = np.array([[5.0, 4.0, 4.0, 1.0]] * 2 + [[0.0, np.nan, 0.0, 0.0]])
    answer = np.array([2, 2, 1])
    known = np.array([[False] * 4, [True, False, True, False], [False] * 4])
    # Above: item 0, tied: item 1. Then without item 0. A score that is no number is last.
    assert filtered_ranks(score, answer, known).tolist() == [2.5, 1.5, 4.0]
    assert filtered_ranks(score, answer).tolist() == [2.5, 2.5, 4.0]
    ranks = np.array([1.0, 2.0, 4.0])
    assert mean_reciprocal_rank(ranks) == (1 + 0.5 + 0.25) / 3
    assert [hits_at_k(ranks, k) for k in (1, 2, 10)] == [1 / 3, 2 / 3, 1.0]
    assert np.isnan(mean_reciprocal_rank(ranks[:0])) and np.isnan(hits_at_k(ranks[:0], 1))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: precision_at_k(x, x, 0), "k must be at least 1, got 0"),
        (lambda x: ndcg_at_k(x, x - 2, 1), "gain must not be negative, got -1.0"),
        (lambda x: spearman(x, x[:1]), "one shape [N, items], got [2, 2], [1, 2] and [2, 2]"),
        (lambda x: spearman(x * np.nan, x), "entries that count must be finite"),
        (lambda x: filtered_ranks(x, np.zeros(3, int)), "got [2, 2] and [3]"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError) as error:
        call(np.ones((2, 2)))
    assert words in str(error.value) and str(error.value).endswith(".")

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.data import DataError
from fedjax_med.preprocessing import suppress
from tests.draws import draws


def with_totals(counts):
    full = np.append(counts, counts.sum(axis=-1, keepdims=True), axis=-1)
    return np.append(full, full.sum(axis=0, keepdims=True), axis=0) if counts.ndim == 2 else full


def told(counts, min_count):
    got = suppress(counts, min_count)
    if counts.ndim == 1:
        return np.append(got.counts, got.total)
    full = np.column_stack([got.counts, got.row_totals])
    return np.vstack([full, np.append(got.column_totals, got.total)])


def other_tables(full, hidden):
    """All tables one step from the true one that agree with what is told; at least 1 where not.

    Sums along two axes are totally unimodular, so if any other table of whole numbers agrees, one
    does whose entries differ by at most 1 (Schrijver, 1998, section 19.4).
    """
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=int(hidden.sum()))))
    moves = np.zeros((len(steps), *full.shape))
    moves[:, hidden] = steps
    fits = ((full + moves)[:, hidden] >= 1).all(axis=1)
    for axis in range(1, full.ndim + 1):
        line = np.moveaxis(moves, axis, -1)
        fits &= (line[..., :-1].sum(-1) == line[..., -1]).reshape(len(steps), -1).all(axis=1)
    return moves[fits]


shapes = st.sampled_from([(2,), (5,), (1, 3), (2, 2)])


@draws(25, 300)
@given(data=st.data(), shape=shapes, min_count=st.integers(2, 6))
def test_small_counts_cannot_be_found_from_the_rest(data, shape, min_count):
    size = int(np.prod(shape))
    cells = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    counts = np.array(cells).reshape(shape)
    full, shown = with_totals(counts), told(counts, min_count)
    hidden = np.isnan(shown)
    np.testing.assert_array_equal(shown[~hidden], full[~hidden])
    small = (full > 0) & (full < min_count)
    assert hidden[small].all() and (full[hidden] > 0).all()
    moves = other_tables(full, hidden)
    assert (moves[:, small] != 0).any(axis=0).all()
    assert small.any() or not hidden.any()


def test_a_single_small_cell_takes_the_smallest_other_of_its_lines_along():
    counts = np.array([[3, 10, 20], [7, 8, 9], [30, 11, 12]])
    got = suppress(counts, 5)
    # 3 alone is the rest of its row; with 10, the rest of its column; with 7, 10 is; 8 closes the loop.
    want = np.array([[np.nan, np.nan, 20], [np.nan, np.nan, 9], [30, 11, 12]])
    np.testing.assert_array_equal(got.counts, want)
    np.testing.assert_array_equal(got.row_totals, counts.sum(axis=1))
    np.testing.assert_array_equal(got.column_totals, counts.sum(axis=0))


def test_two_ones_are_not_hidden_by_each_other():
    got = suppress(np.array([1, 1, 20]), 5)  # what is left out is at least 1, and adds up to 2
    assert np.isnan(got.counts).all() and got.total == 22


def test_a_small_total_is_left_out():
    got = suppress(np.array([2, 1, 0]), 5)
    assert np.isnan(got.counts[:2]).all() and got.counts[2] == 0 and np.isnan(got.total)


def test_nothing_is_left_out_without_need():
    counts = np.array([[0, 5], [9, 0]])
    np.testing.assert_array_equal(suppress(counts, 5).counts, counts)
    np.testing.assert_array_equal(suppress(counts + 1, 1).counts, counts + 1)


@pytest.mark.parametrize("counts", [[-1, 2], [0.5, 1], [[[1]]], [], [np.nan]])
def test_only_tables_of_counts_are_taken(counts):
    with pytest.raises(DataError, match="counts must be a table"):
        suppress(np.array(counts), 5)

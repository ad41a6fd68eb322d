"""Periods of examples by their times; what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.streams import Stream, by_time, in_periods
from tests.draws import draws


def dataset(sizes):
    total = sum(sizes)
    arrays = ClientArrays({"x": np.arange(total, dtype=np.float32)[:, None]}, np.array(sizes))
    return FederatedDataset("toy", tuple(f"Clinic {i}" for i in range(len(sizes))), arrays)


@draws(40, 400)
@given(times=st.lists(st.lists(st.integers(0, 29), min_size=1, max_size=9), min_size=1, max_size=4))
def test_every_example_arrives_once_in_its_period(times):
    edges = [0.0, 7.0, 20.0, 30.0]
    data = dataset([len(t) for t in times])
    stream = by_time(data, np.concatenate([np.array(t, float) for t in times]), edges)
    flat = np.concatenate(times)
    seen = []
    for period in range(3):
        x = stream.dataset.train.examples["x"][stream.rows(period), 0].astype(int)
        assert ((edges[period] <= flat[x]) & (flat[x] < edges[period + 1])).all()
        seen += x.tolist()
    assert sorted(seen) == list(range(len(flat)))
    for c in range(len(times)):
        own = stream.dataset.train.client(c)["x"][:, 0].astype(int)
        assert (np.diff(flat[own]) >= 0).all()


def test_gaps_are_refused_in_one_sentence():
    time = np.array([0.0, 1.5, 2.5, 0.5, 2.5])
    stream = by_time(dataset([3, 2]), time, [0.0, 1.0, 2.0, 3.0])
    assert stream.arrivals.tolist() == [[1, 1], [1, 0], [1, 1]]
    with pytest.raises(DataError) as error:
        by_time(dataset([3, 2]), time, [0.0, 1.0, 2.0, 3.0], gaps="refuse")
    assert str(error.value) == (
        "client 'Clinic 1' has no examples from 1 to 2, 1 gaps of all clients in all; take longer "
        "periods, or gaps='allow'."
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda d: by_time(d, np.zeros(2), [0.0, 1.0, 2.0]),
            r"one value per training example \(5\)",
        ),
        (lambda d: by_time(d, np.zeros(5), [0.0, 1.0]), "two periods at least"),
        (lambda d: by_time(d, np.zeros(5), [0.0, 2.0, 1.0]), "edges must rise"),
        (
            lambda d: by_time(d, np.array([0, 0, 0, 9, 0.0]), [0.0, 1.0, 2.0]),
            "'Clinic 1' came at 9, but",
        ),
        (lambda d: by_time(d, np.array([0, np.nan, 0, 0, 0]), [0.0, 1.0, 2.0]), "came at nan, but"),
        (lambda d: by_time(d, np.zeros(5), [0.0, 1.0, 2.0], gaps="fill"), "'allow' or 'refuse'"),
        (lambda d: in_periods(d, 1), "num_periods must be at least 2, got 1"),
        (lambda d: in_periods(d, 3), "'Clinic 1' has 2 examples, fewer than the 3 periods"),
        (lambda d: Stream(d, np.array([[0, 0], [2, 2]])), "'Clinic 0' must rise from 0 to its 3"),
        (lambda d: Stream(d, np.zeros((3, 1))), r"\[periods \+ 1, 2\]"),
    ],
)
def test_bad_arrivals_are_named(make, message):
    with pytest.raises(DataError, match=message):
        make(dataset([3, 2]))

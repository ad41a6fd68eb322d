"""Beats and intervals against the files read here; divisions by patient and by time."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import datasets
from fedjax_med.data import DataError
from fedjax_med.datasets import _mitbih_rr
from tests.draws import draws

MINUTE = 60 * 360


@pytest.fixture(scope="module")
def waveforms(shared_data_dir):
    with np.load(shared_data_dir / "ecg_mitbih" / "ecg_beats.npz") as file:
        return {key: file[key] for key in file}


@pytest.fixture(scope="module")
def beats(shared_data_dir):
    with open(shared_data_dir / "ecg_mitbih" / "beats_all48.csv") as file:
        return [(int(r["record"]), int(r["sample"]), r["symbol"]) for r in csv.DictReader(file)]


def test_beats_are_those_of_the_file_in_millivolt(waveforms, shared_data_dir):
    data = datasets.mitbih_beats(data_dir=shared_data_dir, validation_minutes=5.0)
    assert data.client_names == tuple(
        f"Patient {n}" for n in (100, 106, 108, 113, 121, 202, 223, 231, 232)
    )
    assert data.label_names == ("N", "S", "V", "F")
    borders = {"train": (0, 5), "validation": (5, 10), "test": (10, 99)}
    for client, number in ((1, 106), (8, 232)):
        own = waveforms["record"] == number
        sample = waveforms["sample"][own].astype(int)
        kept = 0
        for part, (low, high) in borders.items():
            inside = (sample - 100 >= low * MINUTE) & (sample + 156 <= high * MINUTE)
            got = data.splits()[part].client(client)
            want = (waveforms["X"][own][inside].astype(np.float64) - 1024) / 200
            # Whole numbers over 200, rounded once.
            np.testing.assert_allclose(got["x"][..., 0], want, rtol=1e-6, atol=0)
            np.testing.assert_array_equal(got["y"], waveforms["y"][own][inside])
            kept += inside.sum()
        assert sample.size - 4 <= kept <= sample.size  # few windows lie on a border


def test_patients_of_training_and_unseen_ones_are_different_people(waveforms, shared_data_dir):
    seen = datasets.mitbih_beats(data_dir=shared_data_dir, patients="DS1", minutes=None)
    unseen = datasets.mitbih_beats(data_dir=shared_data_dir, patients="DS2")
    assert not set(seen.client_names) & set(unseen.client_names)
    together = {*seen.client_names, *unseen.client_names}
    assert together == set(datasets.mitbih_beats(data_dir=shared_data_dir).client_names)
    assert seen.test is None
    assert seen.train.sizes.tolist() == [
        (waveforms["record"] == number).sum() for number in (106, 108, 223)
    ]
    # The paced record, and with it class Q, is in neither.
    assert "Patient 104" not in together
    assert (waveforms["y"][np.isin(waveforms["record"], [104])] == 4).mean() > 0.9
    assert (waveforms["y"][~np.isin(waveforms["record"], [104])] == 4).sum() == 0


def test_intervals_are_those_of_the_file(beats, shared_data_dir):
    past, future = 3, 2
    data = datasets.mitbih_rr(data_dir=shared_data_dir, past=past, future=future, minutes=10.0)
    rows = [b for b in beats if b[0] == 119]
    time = np.array([b[1] for b in rows]) / 360
    of = {"N": 0, "L": 0, "R": 0, "e": 0, "j": 0, "A": 1, "a": 1, "J": 1, "S": 1, "V": 2, "E": 2}
    want = {"train": [], "test": []}
    for i in range(past, len(rows) - future):
        window = np.diff(time[i - past : i + future + 1])
        if rows[i][2] not in of:
            continue
        if rows[i + future][1] <= 10 * MINUTE:
            want["train"].append((window, of[rows[i][2]]))
        elif rows[i][1] >= 10 * MINUTE:
            want["test"].append((window, of[rows[i][2]]))
    client = data.client_index("Patient 119")
    for part, examples in want.items():
        got = data.splits()[part].client(client)
        # Differences of times up to 1800 s in float64, rounded to float32.
        np.testing.assert_allclose(got["x"][..., 0], [w for w, _ in examples], rtol=1e-6)
        assert got["y"].tolist() == [y for _, y in examples]


def test_one_patient_of_two_records_is_one_client(beats, shared_data_dir):
    data = datasets.mitbih_rr(data_dir=shared_data_dir, minutes=None)
    assert data.num_clients == 47 == len({b[0] for b in beats}) - 1
    assert "Patient 202" not in data.client_names
    asked = [b for b in beats if b[0] in (201, 202) and b[2] not in "F"]
    size = data.train.sizes[data.client_index("Patient 201")]
    # Of each record the first 16 beats and the last one have no window; F are not asked about.
    assert size == len(asked) - 2 * 17
    unpaced = datasets.mitbih_rr(data_dir=shared_data_dir, paced=False)
    assert unpaced.num_clients == 43 and "Patient 217" not in unpaced.client_names


def test_a_series_with_gaps_is_refused_in_one_sentence(shared_data_dir):
    with pytest.raises(DataError) as error:
        datasets.load("mitbih-rr", shared_data_dir, gaps="refuse")
    assert str(error.value) == (
        "record 207 has no beats for 12.0 s from 40.3 s on, 5 gaps of more than 6.5 s in all; cut the "
        "series there, or leave out the windows with gaps='leave-out'."
    )
    left = datasets.mitbih_rr(data_dir=shared_data_dir)
    for arrays in left.splits().values():
        assert arrays.examples["x"].max() < 6.5


@draws(60, 600)
@given(
    intervals=st.lists(st.sampled_from([0.4, 0.8, 1.2, 9.0]), min_size=4, max_size=40),
    past=st.integers(1, 5),
    future=st.integers(0, 2),
)
def test_windows_are_all_those_without_a_gap(intervals, past, future):
    time = 3 + np.concatenate([[0], np.cumsum(intervals)])
    got = _mitbih_rr.interval_windows(time, past=past, future=future, name="a")
    want = [
        (i, intervals[i - past : i + future])
        for i in range(past, len(time) - future)
        if max(intervals[i - past : i + future]) < 9
    ]
    assert got.beat.tolist() == [i for i, _ in want]
    wanted = np.array([w for _, w in want]).reshape(-1, past + future)
    # Sums of 40 intervals of float64, then float32.
    np.testing.assert_allclose(got.intervals, wanted, rtol=1e-6)


def test_beats_out_of_order_are_refused():
    with pytest.raises(DataError) as error:
        _mitbih_rr.interval_windows(np.array([1.0, 2.0, 2.0]), past=1, future=0, name="record 7")
    assert str(error.value) == (
        "beats of record 7 must be later one than the other, but beat 3 is at 2.00 s and the one "
        "before it at 2.00 s."
    )


@pytest.mark.parametrize(
    "name, options, sentence",
    [
        ("mitbih-beats", {"patients": "DS3"}, "must be one of all, DS1, DS2, got 'DS3'"),
        ("mitbih-beats", {"minutes": 0.0}, "minutes must be above 0, or None"),
        ("mitbih-beats", {"minutes": 20.0, "validation_minutes": 10.0}, "less than the 30"),
        (
            "mitbih-rr",
            {"minutes": None, "validation_minutes": 1.0},
            "must be 0 where minutes is None",
        ),
        ("mitbih-rr", {"past": 0}, "past must be at least 1"),
        ("mitbih-rr", {"gaps": "fill"}, "must be 'leave-out' or 'refuse', got 'fill'"),
    ],
)
def test_bad_options_are_named(name, options, sentence, shared_data_dir):
    with pytest.raises(DataError, match=sentence):
        datasets.load(name, shared_data_dir, **options)


def test_without_a_folder_it_says_where_the_records_are(monkeypatch):
    monkeypatch.delenv("FEDJAX_MED_DATA", raising=False)
    with pytest.raises(DataError, match=r"needs a local copy of ecg_beats.npz.*physionet.org"):
        datasets.mitbih_beats()

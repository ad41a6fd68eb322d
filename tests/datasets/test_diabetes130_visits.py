import csv
import gzip
from collections import defaultdict

import numpy as np
import pytest

from fedjax_med import datasets
from fedjax_med.data import DataError, check

GONE = {"11", "13", "14", "19", "20", "21"}  # died, or went to a hospice


@pytest.fixture(scope="module")
def sequences(shared_data_dir):
    """Encounters of every sequence, from the file, in plain Python."""
    path = shared_data_dir / "diabetes130" / "diabetic_data.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["encounter_id"]))
    seen, found = defaultdict(list), []
    for row in rows:
        own = seen[row["payer_code"], row["patient_nbr"]]
        own.append(row)
        if len(own) > 1 and row["discharge_disposition_id"] not in GONE:
            found.append(own[-6:])
    return found


def test_every_return_is_a_sequence_of_one_client(returns, sequences):
    check(returns, allow_missing=True)
    parts = returns.splits().values()
    assert sum(a.num_examples for a in parts) == len(sequences)
    want = defaultdict(lambda: [0, 0])
    for encounters in sequences:
        last = encounters[-1]
        count = want["not recorded" if last["payer_code"] == "?" else last["payer_code"]]
        count[0] += 1
        count[1] += last["readmitted"] == "<30"
    got = {
        name: [
            sum(len(a.client(i)["y"]) for a in parts),
            sum(a.client(i)["y"].sum() for a in parts),
        ]
        for i, name in enumerate(returns.client_names)
    }
    assert got == want


def test_visits_hold_what_the_file_says(returns, sequences):
    """Each sequence as its diagnoses of circulation and counts, as a multiset over all sequences."""
    names = np.array(returns.feature_names)
    soon = int(np.flatnonzero(names == "back within 30 days")[0])
    steady = int(np.flatnonzero(names == "insulin=Steady")[0])
    got, want = defaultdict(int), defaultdict(int)
    for arrays in returns.splits().values():
        e = arrays.examples
        has = [(e["codes"] == code).any(axis=2) for code in (soon, steady)]
        for i, n in enumerate(e["visits"]):
            key = (tuple(has[0][i, :n]), tuple(has[1][i, :n]), tuple(e["labs"][i, :n, 0].tolist()))
            got[key] += 1
    for encounters in sequences:
        key = (
            (False, *(r["readmitted"] == "<30" for r in encounters[:-1])),
            tuple(r["insulin"] == "Steady" for r in encounters),
            tuple(float(r["time_in_hospital"]) for r in encounters),
        )
        want[key] += 1
    # How the first of six encounters was come to is not said where there were more before it.
    assert got == want


def test_padding_is_empty_and_patients_are_on_one_side(returns, sequences):
    ages = defaultdict(set)
    for split, arrays in returns.splits().items():
        e = arrays.examples
        real = np.arange(e["codes"].shape[1]) < e["visits"][:, None]
        assert e["visits"].min() == 2 and not e["codes"][~real].any()
        assert np.isnan(e["labs"][~real]).all() and not np.isnan(e["labs"][real]).any()
        # Sequences of one patient begin alike; counts of the first two visits tell patients apart.
        for n, first in zip(e["visits"], e["labs"][:, :2].reshape(len(real), -1), strict=True):
            if n < 6:
                ages[tuple(first.tolist())].add(split)
    both = sum(len(splits) > 1 for splits in ages.values())
    assert both < 0.01 * len(ages)  # by coincidence: 16 small numbers
    share = returns.splits()["test"].num_examples / len(sequences)
    assert abs(share - 0.25) < 0.02


def test_options_are_checked(shared_data_dir):
    with pytest.raises(DataError, match="max_visits must be at least 2, got 1"):
        datasets.diabetes130_visits(data_dir=shared_data_dir, max_visits=1)
    with pytest.raises(DataError, match="clients must be 'payer', 'specialty'"):
        datasets.diabetes130_visits(data_dir=shared_data_dir, clients="hospital")

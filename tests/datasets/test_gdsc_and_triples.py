"""Drug responses and triples against their files, read by hand."""

import csv

import numpy as np
import pytest

from fedjax_med.data import DataError
from fedjax_med.datasets import gdsc_ic50, triple_dataset, umls

HELD_OUT = ("responses", "cell lines")


@pytest.fixture(scope="module")
def both(shared_data_dir):
    return {held: gdsc_ic50(data_dir=shared_data_dir, held_out=held) for held in HELD_OUT}


def test_every_response_of_the_file_is_trained_on_or_asked_for(both, shared_data_dir):
    with open(shared_data_dir / "gdsc_ic50" / "ic50_622x138.csv") as file:
        rows = list(csv.DictReader(file))
    dataset = both["responses"]
    assert dataset.train.sizes.sum() == 622 and len(dataset.feature_names) == 138
    number = dict.fromkeys(dataset.client_names, 0)
    for row in rows:
        client = dataset.client_index(row["Cancer Type"])
        train, test = (arrays.client(client) for arrays in (dataset.train, dataset.test))
        i = number[row["Cancer Type"]]
        number[row["Cancer Type"]] += 1
        for j in (0, 31, 137):
            text = row[dataset.feature_names[j]]
            known = [e["y"][i, j] for e in (train, test) if e["measured"][i, j]]
            assert known == ([np.float32(text)] if text else [])
            if train["measured"][i, j]:
                assert train["x"][i, j] == test["x"][i, j] == known[0]
            else:
                assert np.isnan(train["x"][i, j]) and np.isnan(test["x"][i, j])
    measured = [a.examples["measured"].sum() for a in (dataset.train, dataset.test)]
    assert sum(measured) == 69_564
    # 20 % of 69,564, five standard deviations of a binomial count.
    assert abs(measured[1] - 0.2 * 69_564) < 5 * np.sqrt(0.16 * 69_564)


def test_new_cell_lines_have_some_responses_that_are_known(both):
    dataset = both["cell lines"]
    e = dataset.test.examples
    assert dataset.train.sizes.sum() + dataset.test.sizes.sum() == 622
    known = ~np.isnan(e["x"])
    assert (known.sum(1) == 20).all() and not (known & e["measured"]).any()
    assert e["measured"].sum(1).min() > 0
    assert (e["y"][~e["measured"]] == 0).all() and np.isfinite(e["y"]).all()
    assert {k: v.dtype.name for k, v in e.items()} == {
        "x": "float32",
        "y": "float32",
        "measured": "bool",
    }


@pytest.mark.parametrize(
    "options, words",
    [
        ({"held_out": "drugs"}, "held_out must be 'responses' or 'cell lines', got 'drugs'."),
        ({"test": 1.0}, "test must be between 0 and 1, got 1.0."),
        ({"known": -1}, "known must not be negative, got -1."),
    ],
)
def test_options_of_gdsc_that_are_not_allowed(options, words, shared_data_dir):
    with pytest.raises(DataError) as error:
        gdsc_ic50(data_dir=shared_data_dir, **options)
    assert str(error.value) == words


def test_umls_is_its_files_with_every_relation_at_one_hospital(shared_data_dir):
    dataset = umls(data_dir=shared_data_dir, clients=10)
    owners = {}
    for split, file in (("train", "train"), ("validation", "valid"), ("test", "test")):
        lines = (shared_data_dir / "umls_kg" / f"{file}.txt").read_text().splitlines()
        e = dataset.splits()[split].examples
        got = {
            (dataset.label_names[h], dataset.feature_names[r], dataset.label_names[t])
            for h, r, t in zip(e["head"], e["relation"], e["tail"], strict=True)
        }
        assert got == {tuple(line.split("\t")) for line in lines} and len(lines) == len(e["head"])
        rows = np.repeat(np.arange(10), dataset.splits()[split].sizes)
        np.testing.assert_array_equal(e["client"], rows)
        for relation, client in zip(e["relation"].tolist(), rows.tolist(), strict=True):
            assert owners.setdefault(relation, client) == client
    assert len(dataset.label_names) == 135 and sorted(owners) == list(range(46))
    assert np.bincount(list(owners.values())).tolist() == [5] * 6 + [4] * 4


def test_umls_without_files_says_where_they_are(monkeypatch):
    monkeypatch.delenv("FEDJAX_MED_DATA", raising=False)
    with pytest.raises(DataError, match=r"^umls needs local copies of train.txt, valid.txt, test"):
        umls()


@pytest.mark.parametrize(
    "test, words",
    [
        ("a\tr\tb\na\tr\tz\n", "test.txt line 2 has the tail 'z', which is in no triple of train"),
        ("b\tq\ta\n", "test.txt line 1 has the relation 'q', which is in no triple of train.txt."),
        ("a r b\n", "test.txt line 1 must be head, relation and tail with tabs between them, got"),
        ("", "test.txt has no triples; at least one is needed."),
    ],
)
def test_bad_triples_are_named_by_file_and_line(test, words, tmp_path):
    (tmp_path / "train.txt").write_text("a\tr\tb\nb\tr\ta\n")
    (tmp_path / "test.txt").write_text(test)
    files = {name: tmp_path / name for name in ("train.txt", "test.txt")}
    with pytest.raises(DataError) as error:
        triple_dataset(files, clients=1)
    assert words in str(error.value) and str(error.value).endswith(".")


def test_options_of_triples_that_are_not_allowed(tmp_path):
    (tmp_path / "train.txt").write_text("a\tr\tb\n")
    files = {"train.txt": tmp_path / "train.txt"}
    with pytest.raises(DataError, match=r"^clients must be from 1 to 1, the relations of graph"):
        triple_dataset(files, clients=2)
    with pytest.raises(DataError, match=r"^files must have 'train.txt', got none.$"):
        triple_dataset({}, clients=1)
    with pytest.raises(DataError, match=r"none.txt cannot be read \(No such file or directory\).$"):
        triple_dataset({"train.txt": tmp_path / "none.txt"}, clients=1)

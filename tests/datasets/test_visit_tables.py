import gzip

import numpy as np
import pytest

from fedjax_med.data import DataError, check
from fedjax_med.datasets import VisitFiles, load_visits

VISITS = """patient,visit,date,code,lab,value
P1,1,2021-03-04,I50,,
P1,1,2021-03-04,N18,,
P1,1,2021-03-04,,creatinine,92
P1,2,2021-06-11,,,
P1,3,2021-06-12,E11,,
P1,3,2021-06-12,E11,,
P2,1,2020-01-01,E11,,
"""
PATIENTS = "patient,outcome,age\nP1,1,71\nP2,0,\n"
HEADER = "patient,visit,date,code,lab,value\n"


@pytest.fixture
def write(tmp_path):
    def files(visits=VISITS, patients=PATIENTS):
        paths = VisitFiles(tmp_path / "visits.csv", tmp_path / "patients.csv")
        paths.visits.write_text(visits)
        paths.patients.write_text(patients)
        return paths

    return files


def test_records_are_read_as_they_were_written(write):
    dataset = load_visits({"North": write()}, static=["age"])
    check(dataset, allow_missing=True)
    e = dataset.train.examples
    assert dataset.feature_names == ("no code", "E11", "I50", "N18")
    assert e["codes"].shape == (2, 12, 2)
    assert e["codes"][0, :4].tolist() == [[2, 3], [0, 0], [1, 0], [0, 0]]
    assert e["gap"][0, :4].tolist() == [0, 99, 1, 0]
    assert e["visits"].tolist() == [3, 1] and e["y"].tolist() == [1, 0]
    assert e["labs"][0, 0, 0] == 92 and np.isnan(e["labs"]).sum() == 23
    assert e["static"][0, 0] == 71 and np.isnan(e["static"][1, 0])


def test_the_latest_visits_of_a_long_record_are_kept(write):
    e = load_visits({"North": write()}, max_visits=2).train.examples
    assert e["visits"].tolist() == [2, 1] and "static" not in e
    assert e["codes"][0].tolist() == [[0, 0], [1, 0]]
    assert e["gap"][0].tolist() == [0, 1]  # nothing is known of what came before


def test_hospitals_share_codes_and_packed_files_are_read(write, tmp_path):
    north = write()
    south = VisitFiles(tmp_path / "south.csv.gz", tmp_path / "south_patients.csv")
    with gzip.open(south.visits, "wt") as file:
        file.write(HEADER + "A,1,2021-01-01,Z99,,\n")
    south.patients.write_text("patient,outcome\nA,0\n")
    dataset = load_visits({"North": north, "South": south})
    assert dataset.client_names == ("North", "South")
    assert dataset.feature_names == ("no code", "E11", "I50", "N18", "Z99")
    assert dataset.train.client(1)["codes"][0, 0].tolist() == [4, 0]
    codes = ["Z99", "N18", "I50", "E11"]
    dataset = load_visits({"North": north, "South": south}, codes=codes, labs=["BNP", "creatinine"])
    assert dataset.feature_names == ("no code", *codes)
    assert dataset.train.client(0)["labs"][0, 0].tolist()[1] == 92


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ("P9,1,2021-01-01,E11,,", "row 2 of .*visits.csv: patient 'P9' is not in .*patients.csv"),
        ("P1,one,2021-01-01,E11,,", "visit must be a whole number from 1, got 'one'"),
        ("P1,0,2021-01-01,E11,,", "visit must be a whole number from 1, got '0'"),
        ("P1,1,01.02.2021,E11,,", "date must be written like 2021-03-04, got '01.02.2021'"),
        ("P1,1,2021-01-01,E11,Hb,", "a code or a lab, got 'E11' and 'Hb'"),
        ("P1,1,2021-01-01,,Hb,", "lab and value go together, got 'Hb' and ''"),
        ("P1,1,2021-01-01,E11,,3", "lab and value go together, got '' and '3'"),
        ("P1,1,2021-01-01,,Hb,low", "value must be a number, got 'low'"),
        ("P1,1,2021-01-01,,Hb,1\nP1,1,2021-01-01,,Hb,2", "row 3 .* 'Hb' is there twice in visit 1"),
        ("P1,1,2021-01-01,,,\nP1,1,2021-01-02,,,", "was on 2021-01-01 above, here on 2021-01-02"),
        (
            "P1,1,2021-01-01,,,\nP1,3,2021-01-02,,,\nP2,1,2021-01-01,,,",
            "numbered 1 to 3 without a gap, but visit 2 is missing",
        ),
        (
            "P1,1,2021-01-02,,,\nP1,2,2021-01-01,,,\nP2,1,2021-01-01,,,",
            "visit 2 of patient 'P1' .* was on 2021-01-01, before visit 1 on 2021-01-02",
        ),
        ("P1,1,2021-01-01,,,", "patient 'P2' of .*patients.csv has no visit in .*visits.csv"),
        ("P1,1,2021-01-01", "row 2 of .* has 3 values, but the header names 6 columns"),
    ],
)
def test_broken_visits_are_refused_in_one_sentence(write, rows, sentence):
    with pytest.raises(DataError, match=sentence) as error:
        load_visits({"North": write(visits=HEADER + rows + "\n")})
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "patients, sentence",
    [
        ("patient,age\nP1,3\n", "patients.csv must have one column 'outcome'"),
        ("patient,outcome,age\n", "patients.csv has no rows"),
        ("patient,outcome,age\nP1,yes,3\n", "row 2 .* outcome must be 0 or 1, got 'yes'"),
        ("patient,outcome,age\nP1,1,old\n", "row 2 .* age must be a number, got 'old'"),
        ("patient,outcome,age\nP1,1,3\nP1,0,3\n", "row 3 .* patient 'P1' is there twice"),
    ],
)
def test_broken_patients_are_refused_in_one_sentence(write, patients, sentence):
    with pytest.raises(DataError, match=sentence):
        load_visits({"North": write(patients=patients)}, static=["age"])


def test_codes_and_files_that_do_not_exist_are_refused(write, tmp_path):
    files = write()
    with pytest.raises(DataError, match="code 'E11' is not among the codes that there may be"):
        load_visits({"North": files}, codes=["I50", "N18"])
    with pytest.raises(DataError, match="lab 'creatinine' is not among the labs"):
        load_visits({"North": files}, labs=["BNP"])
    with pytest.raises(DataError, match=r"nothing.csv cannot be read \(No such file"):
        load_visits({"North": files._replace(visits=tmp_path / "nothing.csv")})
    with pytest.raises(DataError, match="hospitals is empty"):
        load_visits({})
    with pytest.raises(DataError, match="max_visits must be at least 1, got 0"):
        load_visits({"North": files}, max_visits=0)

import io
import json

import numpy as np
import pytest
from rich.console import Console

from fedjax_med.data import DataError
from fedjax_med.datasets import read_schema
from fedjax_med.preprocessing import SUPPRESSED, Messages, site_report, suspected_unit
from tests.preprocessing import worlds

SIZES, SITES = (30, 24, 40), ("A & B", "C", "D")
NAMES = ("cholesterol", "age", "smoker", "lab", "extra")


@pytest.fixture(scope="module")
def hospitals():
    rng = np.random.default_rng(0)
    x = np.stack(
        [
            rng.normal(200, 30, 94),
            rng.normal(60, 10, 94),
            rng.integers(0, 2, 94),
            rng.normal(0, 1, 94),
            rng.normal(5, 1, 94),
        ],
        axis=1,
    )
    x[30:54, 0] /= 38.67  # C measures in mmol/L
    x[0:6, 1] = 999
    x[60, 1] = -1
    x[30:54, 2] = 1  # C has smokers only
    x[54:, 3] = np.nan  # D does not measure
    x[:28, 4] = np.nan  # two values are left at A & B
    x[54:61, 4] = np.nan
    return worlds.divided(x.astype(np.float32), SIZES, NAMES, SITES)


def test_what_is_wrong_is_found_and_small_counts_are_not_told(hospitals):
    messages = Messages()
    report = site_report(hospitals, {"age": (0.0, 120.0)}, messages=messages)
    n, hidden = np.nan, SUPPRESSED
    np.testing.assert_array_equal(report.rows, SIZES)
    np.testing.assert_array_equal(
        report.missing[:, [0, 3, 4]], [[0, 0, hidden], [0, 0, 0], [0, 40, 7]]
    )
    np.testing.assert_array_equal(report.impossible[:, 1], [6, 0, hidden])
    assert np.isnan(report.impossible[:, 0]).all()
    np.testing.assert_array_equal(
        report.outliers[:, [1, 2, 4]], [[6, n, n], [0, n, 0], [hidden, n, 0]]
    )
    np.testing.assert_array_equal(np.argwhere(report.constant), [[1, 2]])
    np.testing.assert_array_equal(np.argwhere(report.absent), [[2, 3]])
    assert np.isnan(report.median[0, 4])  # of two values
    x = hospitals.train.client(0)["x"][:, 0]
    assert abs(report.median[0, 0] - np.quantile(x, 0.5, method="inverted_cdf")) < 200 * 2.0**-15
    assert list(report.units) == [("C", "cholesterol")]
    assert report.units["C", "cholesterol"]._replace(factor=0)[:2] == ("mmol/L", "mg/dL")
    assert {m.statistic: m.leaves for m in messages.entries}["own quantiles"] == "per-site"


def test_a_report_can_be_read(hospitals):
    report = site_report(hospitals, {"age": (0.0, 120.0)})
    told = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert told["A & B"]["rows"] == 30
    assert told["A & B"]["columns"]["extra"]["missing"] == "suppressed"
    assert told["C"]["columns"]["cholesterol"]["unit"]["factor"] == 38.67
    assert told["D"]["columns"]["lab"] | {"unit": 0} == {
        "missing": 40,
        "outliers": None,
        "impossible": None,
        "median": None,
        "constant": False,
        "absent": True,
        "unit": 0,
    }
    found = report.findings()
    assert ("A & B", "age", "6 values are outside of the allowed range") in found
    assert ("D", "age", "some values are outside of the allowed range") in found
    assert ("C", "cholesterol", "seems to be in mmol/L, at the other hospitals in mg/dL") in found
    assert ("D", "lab", "no value") in found
    assert ("C", "smoker", "all values are the same") in found
    assert "<td>A &amp; B</td>" in report.html() and report.html().count("<tr>") == len(found) + 1
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table())
    assert "seems to be in mmol/L" in console.file.getvalue()


def test_a_schema_says_what_is_allowed(hospitals, tmp_path):
    path = tmp_path / "schema.json"
    columns = {name: {"type": "numeric"} for name in NAMES}
    columns["age"]["range"] = [0, 120]
    label = {"type": "regression", "column": "y"}
    path.write_text(json.dumps({"columns": columns, "label": label}))
    report = site_report(hospitals, read_schema(path))
    np.testing.assert_array_equal(report.impossible[:, 1], [6, 0, SUPPRESSED])


def test_ranges_must_fit(hospitals):
    with pytest.raises(DataError, match="unknown column 'ages'"):
        site_report(hospitals, {"ages": (0.0, 1.0)})
    with pytest.raises(DataError, match="range of 'age' must be two numbers"):
        site_report(hospitals, {"age": (1.0, 0.0)})


@pytest.mark.parametrize(
    "column, own, others, seems",
    [
        ("chol", (5.2, 1.0), (200.0, 40.0), "mmol/L"),
        ("glucose_fasting", (100.0, 20.0), (5.5, 1.1), "mg/dL"),
        ("weight", (165.0, 40.0), (75.0, 18.0), "lb"),
        ("Height", (1.7, 0.1), (170.0, 11.0), "m"),
        ("temperature", (98.6, 1.2), (37.0, 0.7), "°F"),
        ("body temp", (37.0, 0.7), (310.1, 0.7), "°C"),
        ("dose", (0.2, 0.1), (200.0, 90.0), "unit"),
        ("chol", (200.0, 40.0), (210.0, 40.0), None),  # patients differ a little
        ("chol", (5.2, 30.0), (200.0, 40.0), None),  # the median fits, the range does not
        ("weight loss", (7.0, 16.0), (15.0, 30.0), None),  # too few for such a range
        ("dose", (75.0, 18.0), (165.0, 40.0), None),  # 2.2 is no conversion of doses
        ("chol", (np.nan, np.nan), (200.0, 40.0), None),
        ("chol", (0.0, 1.0), (200.0, 40.0), None),
    ],
)
def test_units_are_suspected_from_median_and_range(column, own, others, seems):
    found = suspected_unit(column, own, others, 20)
    assert (found and found.seems) == seems
    if found:
        converted = found.factor * own[0] + found.offset
        assert abs(np.log(converted / others[0])) < 0.2


def test_a_hospital_of_few_patients_is_not_told_of(hospitals):
    x = hospitals.train.examples["x"]
    report = site_report(worlds.divided(x, (3, 51, 40), NAMES, SITES))
    assert report.rows[0] == SUPPRESSED and np.isnan(report.median[0]).all()
    assert np.isnan(report.outliers[0]).all()
    assert not [line for line in report.findings() if line[0] == "A & B"]

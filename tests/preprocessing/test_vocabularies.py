import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.data import DataError
from fedjax_med.preprocessing import align, site_columns, spelling_key, vocabulary
from tests.draws import draws


def text(*values):
    return np.array(values, object)


def two_sites():
    return {
        "North": {
            "Age": np.array([60.0, np.nan, 71.0]),
            "Smoking Status": text("never", "Ex smoker", "NEVER"),
            "sex": text("M", "F", ""),
            "died": np.array([0, 1, 0]),
        },
        "South": {
            "age": text("55", "NA"),
            "smoking_status": text("ex-smoker", "Never"),
            "SEX": np.array([1, 2]),
            "stage": text("II", None),
            "died": np.array([True, False]),
        },
    }


def test_tables_of_different_hospitals_become_one():
    dataset, agreed = align(
        two_sites(), targets={"y": "died"}, min_count=1, synonyms={"1": "M", "2": "F"}
    )
    assert dataset.feature_names == (
        "Age",
        "Smoking Status=Ex smoker",
        "Smoking Status=NEVER",
        "SEX=F",
        "SEX=M",
        "stage=II",
    )
    n = np.nan
    want = [
        [60, 0, 1, 0, 1, n],
        [n, 1, 0, 1, 0, n],
        [71, 0, 1, n, n, n],
        [55, 1, 0, 0, 1, 1],
        [n, 0, 1, 1, 0, n],
    ]
    np.testing.assert_array_equal(dataset.train.examples["x"], np.array(want, np.float32))
    assert dataset.train.examples["y"].tolist() == [0, 1, 0, 1, 0]
    assert dataset.train.examples["y"].dtype == np.int32
    assert agreed.columns["stage"].absent_at == ("North",)
    assert agreed.columns["sex"].categories == {"F": 2, "M": 2}
    with pytest.raises(DataError, match="'North' has no column 'stage', which is a target"):
        align(two_sites(), targets={"y": "stage"})
    with pytest.raises(DataError, match="must be a number in every row, got None in row 1"):
        align(two_sites(), targets={"y": "Age"})


def test_rare_and_unseen_categories_are_other():
    sites = {"a": {"c": text("x", "x", "y")}, "b": {"c": text("X", "z", "")}}
    dataset, agreed = align(sites, min_count=3)
    assert agreed.columns["c"].categories == {"x": 3, "other": 2}
    n = np.nan
    want = [[1, 0], [1, 0], [0, 1], [1, 0], [0, 1], [n, n]]
    np.testing.assert_array_equal(dataset.train.examples["x"], want)
    new, _ = align({"c": {"c": text("x", "new")}}, agreed=agreed)
    np.testing.assert_array_equal(new.train.examples["x"], [[1, 0], [0, 1]])
    # Where there is no "other", what is not known is missing, and so is a column that is not there.
    _, all_known = align(sites, min_count=1)
    new, _ = align({"c": {"c": text("new", "Y")}, "d": {"q": text("x")}}, agreed=all_known)
    np.testing.assert_array_equal(new.train.examples["x"], [[n] * 3, [0, 1, 0], [n] * 3])


@draws(30, 500)
@given(
    words=st.lists(st.sampled_from(["a b", "A-B", "c", "C ", "d", ""]), min_size=1, max_size=12),
    cut=st.integers(0, 12),
    min_count=st.integers(1, 4),
)
def test_how_rows_are_divided_does_not_matter(words, cut, min_count):
    def agreed(*parts):
        told = {str(i): site_columns({"c": text(*part)}) for i, part in enumerate(parts)}
        column = vocabulary(told, min_count=min_count).columns["c"]
        return column.categories, column.known_as

    assert agreed(words[:cut], words[cut:]) == agreed(words)


def test_spelling():
    assert spelling_key(" Ex_Smoker ") == spelling_key("ex-smoker") == "ex smoker"
    with pytest.raises(DataError, match="'Age' and 'age ' differ in spelling only"):
        site_columns({"Age": np.zeros(1), "age ": np.zeros(1)})
    with pytest.raises(DataError, match="equal length"):
        site_columns({"a": np.zeros(1), "b": np.zeros(2)})
    told = {"a": site_columns({"sex": text("M"), "gender": text("M")})}
    with pytest.raises(DataError, match="two columns that are one: 'sex' and 'gender'"):
        vocabulary(told, synonyms={"gender": "sex"})

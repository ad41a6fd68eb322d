"""Who is trained on and who is judged, and what may be known of whom."""

import numpy as np
import pytest

from fedjax_med.studies.populations import (
    Fitted,
    hospitals_left_out,
    pooled,
    splits,
    to_tune_on,
    union,
)
from tests.studies.toy import SIZES, make_hospitals


def centred(raw):
    """A preprocessing that is easily told: minus the mean of the training examples."""
    mean = np.nanmean(raw.train.examples["x"], axis=0)
    return Fitted(
        lambda data: data.map_examples(lambda e: {**e, "x": e["x"] - mean}), lambda x: x, None
    )


@pytest.fixture(scope="module")
def two_splits():
    return splits(make_hospitals(), centred, repeats=2, test=0.3, seed=0, stratify="y")


def rows(arrays):
    return {row.tobytes() for row in np.asarray(arrays.examples["x"])}


def test_every_split_divides_all_patients_and_is_centred_on_its_own_training_patients(two_splits):
    everybody = sum(SIZES.values())
    for split in two_splits:
        assert split.raw.train.num_examples + split.raw.test.num_examples == everybody
        assert not rows(split.raw.train) & rows(split.raw.test)
        np.testing.assert_allclose(
            np.nanmean(split.train.train.examples["x"], axis=0), 0, atol=1e-4
        )
        mean = np.nanmean(split.raw.train.examples["x"], axis=0)
        np.testing.assert_array_equal(
            split.judged.test.examples["x"], split.raw.test.examples["x"] - mean
        )
        assert not split.is_left_out
    assert rows(two_splits[0].raw.test) != rows(two_splits[1].raw.test)


def test_patients_to_tune_on_are_training_patients_only(two_splits):
    tuning = to_tune_on(two_splits, centred, share=0.25, seed=0, stratify="y")
    for split, part in zip(two_splits, tuning, strict=True):
        seen = rows(part.raw.train) | rows(part.raw.test)
        assert seen == rows(split.raw.train)
        assert part.raw.test.num_examples == pytest.approx(0.25 * len(seen), abs=2)


def test_a_hospital_left_out_is_in_nobodys_training_and_all_of_it_is_judged():
    hospitals = make_hospitals()
    for name, left_out in zip(SIZES, hospitals_left_out(hospitals, centred), strict=True):
        assert left_out.is_left_out and left_out.name == f"without {name}"
        assert left_out.raw.client_names == tuple(n for n in SIZES if n != name)
        assert left_out.judged.client_names == (name,)
        assert left_out.test.num_examples == SIZES[name]
        assert left_out.raw.train.num_examples == sum(SIZES.values()) - SIZES[name]
        assert not rows(left_out.raw.train) & rows(left_out.raw_judged.test)


def test_the_union_holds_every_population_where_its_members_say(two_splits):
    whole = union(two_splits)
    assert whole.dataset.client_names[4] == "South in split 2"
    assert [m.tolist() for m in whole.members] == [[0, 1, 2], [3, 4, 5]]
    for split, members in zip(two_splits, whole.members, strict=True):
        for own, client in enumerate(members):
            for key, value in split.train.train.client(own).items():
                np.testing.assert_array_equal(whole.dataset.train.client(int(client))[key], value)
    together = pooled(two_splits)
    assert together.client_names == ("split 1", "split 2")
    np.testing.assert_array_equal(
        together.train.client(1)["y"], two_splits[1].train.train.examples["y"]
    )

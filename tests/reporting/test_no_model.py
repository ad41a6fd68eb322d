import math

import numpy as np
import pytest

from fedjax_med.data import FederatedDataset
from fedjax_med.reporting.no_model import constant_outputs, no_model_baseline


def outcomes(dtype=np.int32, **clients):
    """Clients by name with their training and test outcomes."""

    def examples(y, like):
        y = np.asarray(y, dtype).reshape(-1, *np.shape(like)[1:])
        return {"x": np.zeros((len(y), 1), np.float32), "y": y}

    train = {name: examples(y, y) for name, (y, _) in clients.items()}
    test = {name: examples(z, y) for name, (y, z) in clients.items()}
    return FederatedDataset.from_clients(train, test=test)


def test_the_most_frequent_class_of_the_clients_own_training_patients():
    dataset = outcomes(
        ill=([1, 1, 0], [1, 1, 0, 1]),
        well=([0, 0, 1], [0, 1]),
        tie=([0, 1], [0, 0]),  # of equally frequent classes the first
        untested=([1], []),
    )
    got = no_model_baseline(dataset, "binary")
    np.testing.assert_array_equal(
        got.per_client["accuracy"], np.float32([3 / 4, 1 / 2, 1, math.nan])
    )
    np.testing.assert_array_equal(got.per_client["sensitivity"], [1, 0, math.nan, math.nan])
    np.testing.assert_array_equal(got.per_client["specificity"], [0, 1, 1, math.nan])
    assert got.pooled["accuracy"] == 6 / 8
    assert got.pooled["sensitivity"] == 3 / 4
    # With half a patient of either class added, two of three ill are a probability of 2.5 / 4.
    ill = -(3 * math.log(2.5 / 4) + math.log(1.5 / 4)) / 4
    np.testing.assert_allclose(got.per_client["loss"][[0, 2]], [ill, math.log(2)], rtol=1e-6)


def test_several_classes():
    got = no_model_baseline(outcomes(a=([2, 2, 0], [2, 1]), b=([1], [1])), "multiclass")
    np.testing.assert_array_equal(got.per_client["accuracy"], [0.5, 1])
    a = -(math.log(2.5 / 4.5) + math.log(0.5 / 4.5)) / 2  # shares 1.5, 0.5 and 2.5 of 4.5
    np.testing.assert_allclose(got.per_client["loss"], [a, -math.log(1.5 / 2.5)], rtol=1e-6)


def test_every_label_by_itself():
    dataset = outcomes(a=([[1, 0], [1, 0], [0, 1]], [[1, 1], [1, 0]]))
    got = no_model_baseline(dataset, "multilabel")
    assert got.pooled["accuracy"] == 3 / 4
    assert got.pooled["exact_match"] == 1 / 2


def test_the_mean_of_a_number_in_its_own_unit():
    dataset = outcomes(np.float32, a=([10, 20], [15, 18]), b=([100], [90]))
    got = no_model_baseline(dataset, "regression")
    np.testing.assert_array_equal(got.per_client["mae"], [1.5, 10])
    np.testing.assert_array_equal(got.per_client["mse"], [4.5, 100])
    assert got.pooled["mae"] == np.float32(13 / 3)


def test_equal_risks_are_right_for_half_of_the_pairs():
    def patients(time, event):
        n = len(time)
        return {
            "x": np.zeros((n, 1), np.float32),
            "time": np.float32(time),
            "event": np.int32(event),
        }

    some = {"a": patients([1, 2, 3], [1, 0, 1]), "b": patients([5, 6], [0, 0])}
    got = no_model_baseline(FederatedDataset.from_clients(some, test=some), "survival")
    np.testing.assert_array_equal(got.per_client["c_index"], [0.5, math.nan])  # b has no event
    # The first event is one of three at risk, the last one is alone.
    np.testing.assert_allclose(got.per_client["loss"], [math.log(3) / 3, 0], rtol=1e-6)


@pytest.mark.parametrize("kind, outputs", [("binary", 1), ("multiclass", 3)])
def test_outputs_have_the_shape_of_a_model(kind, outputs):
    labels = [0, 1] if kind == "binary" else [0, 2]
    got = constant_outputs(outcomes(a=(labels, [0]), b=([1, 1], [1])), kind)
    assert got.shape == (2, outputs) and got.dtype == np.float32
    assert np.isfinite(got).all()

"""Modalities are told by shapes and names; every modality has its own models."""

import jax
import numpy as np
import pytest

from fedjax_med import tasks
from fedjax_med.cli.models import MODELS
from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.models import from_function
from fedjax_med.tasks import modalities
from fedjax_med.tasks.defaults import MODELS as OF_TABLES


def hospitals(**examples):
    return FederatedDataset.from_clients({"North": examples, "South": examples}, name="toy")


@pytest.mark.parametrize(
    "shape, want",
    [
        ((4, 3), "table"),
        ((4, 9, 1), "signal"),
        ((4, 5, 5, 1), "image"),
        ((4, 3, 5, 5, 1), "volume"),
    ],
)
def test_the_axes_of_x_tell_the_modality(shape, want):
    dataset = hospitals(x=np.zeros(shape, np.float32), y=np.zeros(4, np.int32))
    assert tasks.modality_of(dataset) == want


def test_codes_are_of_visits_whatever_else_there_is():
    dataset = hospitals(codes=np.zeros((4, 2, 3), np.int32), y=np.zeros(4, np.int32))
    assert tasks.modality_of(dataset) == "visits"


@pytest.mark.parametrize("shape", [(4,), (4, 1, 1, 1, 1, 1)])
def test_other_shapes_are_refused(shape):
    dataset = hospitals(x=np.zeros(shape, np.float32), y=np.zeros(4, np.int32))
    with pytest.raises(DataError, match="x of toy must have 2 axes"):
        tasks.modality_of(dataset)


def flat(dataset, num_outputs):
    size = dataset.train.examples["x"][0].size

    def init(key, x):
        return jax.random.normal(key, (size, num_outputs))

    return from_function(init, lambda w, x: x.reshape(len(x), -1) @ w)


def test_a_model_of_the_modality_is_built_for_the_number_of_outputs(monkeypatch):
    monkeypatch.setattr(
        modalities, "NETWORKS", {"image": {"flat": flat, "other": lambda d, n: None}}
    )
    x, y = np.ones((4, 2, 2, 1), np.float32), np.array([0, 1, 2, 0], np.int32)
    made = tasks.for_dataset(hospitals(x=x, y=y))
    assert made.kind == "multiclass"
    assert made.task.init(0).params.shape == (4, 3)
    with pytest.raises(ValueError, match="must be one of flat, other for image data, got 'resnet'"):
        tasks.for_dataset(hospitals(x=x, y=y), "resnet")


def test_commands_know_the_names_of_all_models():
    assert MODELS["table"] == OF_TABLES
    assert {m: tuple(named) for m, named in MODELS.items() if m != "table"} == {
        m: tuple(named) for m, named in modalities.NETWORKS.items()
    }

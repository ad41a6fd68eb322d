"""A study of the division that the dataset has, of examples that are no table."""

import numpy as np
import pytest

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.evaluation import over_hospitals, paired_bootstrap
from fedjax_med.models import from_function
from fedjax_med.studies import judge_patients, run_study, settings_for, summarise
from fedjax_med.studies.judging import over_seeds, seeds_together
from fedjax_med.studies.populations import Fitted, own_division, to_tune_on_own
from fedjax_med.tasks import modalities
from tests.studies.toy import settings


def as_it_is(raw):
    return Fitted(lambda dataset: dataset, lambda outputs: outputs, None)


SIZES = {"train": 24, "validation": 10, "test": 14}


def flat(dataset, num_outputs):
    size = dataset.train.examples["x"][0].size
    return from_function(
        lambda key, x: np.zeros((size, num_outputs), np.float32),
        lambda w, x: x.reshape(len(x), -1) @ w,
    )


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    parts = {}
    for part, size in SIZES.items():
        x = rng.standard_normal((3, size, 4, 4, 1)).astype(np.float32)
        y = (x.mean(axis=(2, 3, 4)) + 0.1 * rng.standard_normal((3, size)) > 0).astype(np.int32)
        names = ("North", "South", "West")
        parts[part] = {n: {"x": x[i], "y": y[i]} for i, n in enumerate(names)}
    return FederatedDataset.from_clients(
        parts["train"], validation=parts["validation"], test=parts["test"], name="toy"
    )


@pytest.fixture(scope="module")
def study(images):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modalities, "NETWORKS", {"image": {"flat": flat}})
        yield run_study(
            images,
            settings(
                model="flat",
                division="own",
                num_splits=1,
                leave_one_out=False,
                client_optimizer="momentum",
                methods=("fedavg", "fedprox"),
            ),
        )


def test_the_datasets_own_patients_are_trained_on_chosen_on_and_judged(study, images):
    (population,) = study.populations
    assert population.train.train.num_examples == 3 * SIZES["train"]
    assert {o.shape[1] for o in study.outputs["fedavg"]} == {3 * SIZES["test"]}
    assert study.tuned["fedavg"] > 0.5  # of validation patients, who follow the same rule


def test_rates_are_chosen_on_validation_patients(images):
    population = own_division(images, as_it_is)
    (to_tune,) = to_tune_on_own(population, as_it_is, share=0.25, seed=0, stratify="y")
    np.testing.assert_array_equal(to_tune.test.examples["x"], images.validation.examples["x"])
    without = own_division(images.replace(validation=None), as_it_is)
    (to_tune,) = to_tune_on_own(without, as_it_is, share=0.25, seed=0, stratify="y")
    assert to_tune.test.num_examples == 3 * SIZES["train"] // 4
    everyone = np.concatenate([to_tune.test.examples["x"], to_tune.train.train.examples["x"]])
    assert sorted(everyone[:, 0, 0, 0]) == sorted(images.train.examples["x"][:, 0, 0, 0])


def test_intervals_are_over_test_patients(study):
    result = summarise(study, judge_patients(study))
    main = study.judge.main
    metric = over_hospitals(over_seeds(study.judge.metrics[main]))
    told = [
        seeds_together(study.judge, study.outputs[name], study.populations)
        for name in (study.chosen, "local")
    ]
    want = paired_bootstrap(metric, *told, num_resamples=30, seed=study.settings.seed)
    assert result["comparisons"]["local"] == pytest.approx(want._asdict(), nan_ok=True)
    for name in study.settings.methods:
        mean = result["methods"][name]["metrics"][main]["mean"]
        assert mean["low"] <= mean["value"] <= mean["high"]
    assert set(result["details"]) == set(study.names)


def test_a_dataset_without_a_test_set_has_no_division_of_its_own(images):
    with pytest.raises(DataError, match="toy has no test examples"):
        run_study(images.replace(test=None), settings(model="flat", division="own", num_splits=1))


def test_defaults_fit_the_modality_and_the_optimizer(monkeypatch):
    monkeypatch.setattr("fedjax_med.studies.settings.NETWORKS", {"image": {"flat": flat}})
    chosen = settings_for("own", "image", division="own", client_optimizer="adam")
    assert chosen.model == "flat" and chosen.num_splits == 1 and not chosen.leave_one_out
    assert set(chosen.methods) == {"fedavg", "fedprox", "fedadam", "ditto"}
    with pytest.raises(ValueError, match="methods must not have 'scaffold'"):
        settings_for("own", "image", client_optimizer="adam", methods=("scaffold",))
    with pytest.raises(ValueError, match="num_splits must be 1"):
        settings_for("own", division="own", num_splits=3)

"""Scans go through runs and studies as tables do."""

import json

import numpy as np
import pytest

from fedjax_med import datasets
from fedjax_med.cli import main
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.reporting.no_model import constant_outputs, no_model_baseline
from fedjax_med.reporting.study_figures import study_figures
from fedjax_med.studies import BASELINES, judge_patients, run_study, settings_for, summarise
from fedjax_med.studies.baselines import site_rate
from fedjax_med.studies.fitting import fit_of
from fedjax_med.studies.populations import own_division
from tests.datasets.imaging_files import nifti_file


def small_scans(test_patients=4):
    scanners = [s._replace(patients=6, prevalence=1.0) for s in datasets.SCANNERS[:2]]
    return datasets.synthetic_scans(
        size=(8, 8), scanners=scanners, validation_patients=2, test_patients=test_patients
    )


def test_without_a_model_every_voxel_has_the_class_that_is_most_frequent_there():
    mask = np.zeros((5, 3, 3), np.int32)
    mask[:3, 1, 1] = 1  # of the first hospital: three of three, one of three elsewhere
    mask[0, 0, 0] = 1
    mask[3:, 2, 2] = 1  # of the second
    test = np.zeros((2, 3, 3), np.int32)
    test[0, 1, 1] = 1  # the second has nothing to find
    made = FederatedDataset(
        "scans",
        ("A", "B"),
        ClientArrays({"x": np.zeros((5, 3, 3, 1), np.float32), "mask": mask}, np.array([3, 2])),
        test=ClientArrays(
            {"x": np.zeros((2, 3, 3, 1), np.float32), "mask": test}, np.array([1, 1])
        ),
    )
    outputs = constant_outputs(made, "segmentation")
    assert outputs.shape == (2, 3, 3, 2) and outputs.dtype == np.float32
    called = outputs.argmax(axis=-1)
    assert [np.argwhere(one).tolist() for one in called] == [[[1, 1]], [[2, 2]]]
    judged = no_model_baseline(made, "segmentation")
    np.testing.assert_array_equal(judged.per_client["dice"], [1, np.nan])
    np.testing.assert_array_equal(judged.per_client["false_alarm_rate"], [np.nan, 1])
    chosen = settings_for("synthetic-scans", "segmentation")
    population = own_division(made, fit_of(chosen, made, "segmentation"))
    # The same classes as outputs of the study's baseline; a test scan each.
    rate = site_rate(population, "segmentation")
    assert rate.shape == (1, 2, 3, 3, 2)
    np.testing.assert_array_equal(rate[0].argmax(axis=-1), called)


@pytest.mark.slow
def test_a_study_of_scans_judges_dice_and_distances():
    made = small_scans()
    quick = {"methods": ("fedavg", "ditto"), "rounds": 2, "num_seeds": 2, "num_resamples": 20}
    chosen = settings_for("synthetic-scans", "segmentation", **quick)
    study = run_study(made, chosen)
    judgements = judge_patients(study)
    result = summarise(study, judgements)
    assert result["main_metric"] == "dice" and result["kind"] == "segmentation"
    assert list(result["methods"]) == [*BASELINES, "fedavg", "ditto"]
    for method in result["methods"].values():
        assert set(method["metrics"]) == {"dice", "hd95", "false_alarm_rate"}
        assert 0 <= method["metrics"]["dice"]["mean"]["value"] <= 1
        diagonal = 192 * np.sqrt(2)
        assert 0 <= method["metrics"]["hd95"]["mean"]["value"] <= diagonal + 1e-3
    figures = study_figures(study, judgements, result)
    assert any("outlined by" in heading for heading in figures)


@pytest.mark.slow
def test_a_folder_of_scans_is_trained_on_from_the_command_line(tmp_path, capsys):
    for client, name in enumerate(("North", "South")):
        examples = small_scans(12).test.client(client)
        for i, (x, mask) in enumerate(zip(examples["x"], examples["mask"], strict=True)):
            nifti_file(tmp_path / "scans" / name / f"{i}.nii.gz", x[..., 0])
            nifti_file(tmp_path / "scans" / name / "masks" / f"{i}.nii.gz", mask, dtype=np.uint8)
    out = tmp_path / "run"
    run = ["run", str(tmp_path / "scans"), "--model", "small-unet", "--rounds", "2"]
    assert (
        main([*run, "--client-optimizer", "adam", "--client-lr", "0.01", "--output", str(out)]) == 0
    )
    result = json.loads((out / "result.json").read_text())
    assert result["main_metric"] == "dice" and result["kind"] == "segmentation"
    assert list(result["final"]) == ["no_model", "local_only", "best_site", "federated", "pooled"]
    assert "Dice coefficient" in (out / "report.html").read_text()
    assert "convolutions by" in result["performance"]["rewritten"]["training"]

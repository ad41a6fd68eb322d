"""The command lines: records that say everything, arguments refused in one sentence."""

import json

import numpy as np
import pytest

from benchmarks import experiments, kernels, memory, population, records, rounds
from benchmarks.all import other_placements, plan, write
from benchmarks.kernels import report
from benchmarks.workloads import WORKLOADS


def records_of(main, arguments, folder):
    path = folder / "records.jsonl"
    main([*arguments, "--json", str(path)])
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rounds_names_are_the_workloads():
    assert set(rounds.NAMES) == set(WORKLOADS)


def test_rounds_writes_one_complete_line(tmp_path):
    saved = tmp_path / "parameters.npz"
    listed = tmp_path / "cohorts.json"
    listed.write_text(json.dumps([[5, 3], [7], [0, 1, 2]]))
    arguments = ["--workload", "tabular-logreg", "--rounds", "3", "--fixed-order"]
    arguments += ["--cohorts", str(listed), "--save-parameters", str(saved), "--lanes", "2"]
    (record,) = records_of(rounds.main, arguments, tmp_path)
    assert record["seconds_per_round_q1"] <= record["seconds_per_round_median"]
    assert record["seconds_first_round"] > record["compile_s"] > 0
    assert 0 < record["useful_fraction"] <= 1 and record["num_lanes"] == 2
    assert 0 < record["final_loss"] < 1 and record["peak_rss_mb"] > 50
    for name in ("device_kind", "platform", "cpu_count", "python", "jax", "numpy", "optax"):
        assert record[name]
    assert record["command"].startswith("python -m benchmarks.rounds --workload tabular-logreg")
    with np.load(saved) as params:
        assert {n: params[n].shape for n in params} == {"dense1_w": (32, 1), "dense1_b": (1,)}


def test_lanes_and_devices_change_no_parameters(tmp_path):
    results = []
    for number, options in enumerate(([], ["--lanes", "3"], ["--devices", "2"])):
        saved = tmp_path / f"{number}.npz"
        arguments = ["--workload", "tabular-logreg", "--rounds", "2", "--fixed-order", *options]
        rounds.main([*arguments, "--save-parameters", str(saved), "--json", str(tmp_path / "out")])
        with np.load(saved) as params:
            results.append(dict(params))
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "main, arguments, words",
    [
        (rounds.main, ["--workload", "mnist"], "'mnist'"),
        (rounds.main, ["--workload", "ehr-mlp", "--rounds", "0"], "at least 1, got '0'"),
        (rounds.main, ["--workload", "ehr-mlp", "--lanes", "two"], "whole number"),
        (rounds.main, ["--workload", "ehr-mlp", "--cohort", "5"], "4 clients"),
        (rounds.main, ["--workload", "ehr-mlp", "--shuffle", "--fixed-order"], "contradict"),
        (rounds.main, ["--workload", "ehr-mlp", "--devices", "512"], "this machine has"),
        (rounds.main, ["--workload", "all", "--cohort", "5"], "one workload"),
        (rounds.main, ["--workload", "ehr-mlp", "--json", "/no/folder/x"], "Cannot write"),
        (rounds.main, ["--workload", "ehr-mlp", "--cohorts", "/no/file"], "cannot read"),
        (rounds.main, ["--workload", "ehr-mlp", "--save-parameters", "x.txt"], ".npz"),
        (population.main, ["--clients", "5", "--cohort", "6"], "population of 5"),
        (memory.main, ["--case", "mlp", "--cohorts", "10", "5000"], "2000 clients"),
        (experiments.main, ["--data-dir", "/no/folder"], "/no/folder"),
        (kernels.main, ["--kernel", "fft"], "'fft'"),
        (kernels.main, ["--kernel", "masks", "--clients", "0"], "at least 1, got '0'"),
        (kernels.main, ["--kernel", "masks", "--case", "x"], "'x' is no case of masks; it has"),
        (kernels.main, ["--kernel", "masks", "--implementation", "x"], "it has xla, stacked"),
        (kernels.main, ["--kernel", "all", "--case", "x"], "one kernel"),
        (kernels.main, ["--kernel", "masks", "--json", "/no/folder/x"], "Cannot write"),
        (report.main, ["/no/file.jsonl"], "/no/file.jsonl"),
    ],
)
def test_bad_arguments_are_one_sentence(main, arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    out, message = capsys.readouterr()
    assert out == "" and words in message
    assert message.endswith(".\n") and message.count("\n") == 1


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "not JSON"),
        ("[[0, 1]]", "2 rounds"),
        ("[[0], [1, 1]]", "round 1"),
        ("[[0], [4]]", "from 0 to 3"),
        ("[[0], []]", "round 1"),
    ],
)
def test_bad_cohort_files_are_refused(text, words, tmp_path):
    path = tmp_path / "cohorts.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        rounds.read_cohorts(str(path), 2, 4)


def test_population_reports_host_time(tmp_path):
    arguments = ["--clients", "2000", "--cohort", "100", "--rounds", "4"]
    (record,) = records_of(population.main, arguments, tmp_path)
    assert 0 < record["host_seconds_per_round"] and record["peak_rss_mb"] > 50
    assert record["num_traces"] == 1


def test_experiments_agree_with_single_runs(tmp_path, shared_data_dir):
    arguments = ["--seeds", "1", "--rounds", "5", "--data-dir", str(shared_data_dir)]
    (record,) = records_of(experiments.main, arguments, tmp_path)
    assert record["experiments"] == len(experiments.LEARNING_RATES)
    assert record["max_difference"] < 1e-5 * record["largest_parameter"]
    assert str(shared_data_dir) not in record["command"]


def test_memory_measures_one_size(tmp_path):
    arguments = ["--case", "mlp", "--cohort", "10", "--lanes", "2", "--rounds", "1"]
    (record,) = records_of(memory.main, arguments, tmp_path)
    assert record["peak_rss_mb"] > 50 and record["num_lanes"] == 2


def test_all_plans_arguments_that_exist():
    modules = {
        m.__name__.rpartition(".")[2]: m for m in (experiments, kernels, memory, population, rounds)
    }
    for runs in (*plan().values(), other_placements(2)):
        for module, options in runs:
            arguments = modules[module].make_parser().parse_args(options)
            if module == "rounds":
                rounds.check(arguments, rounds.make_parser())


def test_all_names_files_by_device(tmp_path):
    write(tmp_path, "rounds", [{"device_kind": "NVIDIA H200"}, {"device_kind": "NVIDIA H200"}])
    assert len((tmp_path / "rounds-nvidia-h200.jsonl").read_text().splitlines()) == 2


def test_options_for_one_of_all_workloads():
    arguments = ["--workload", "all", "--json=x", "--rounds", "3", "--json", "-"]
    assert rounds.for_workload(arguments, "ehr-mlp") == ["--workload", "ehr-mlp", "--rounds", "3"]
    assert "command" not in records.environment()

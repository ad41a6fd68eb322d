"""`run` and `study` of graphs, responses and genotypes as their user sees them."""

import json

import pytest

from tests.studies.other_worlds import MAKE

STUDY = {
    "graph": "--methods TransE --seeds 2 --rounds 1 --local-epochs 1",
    "responses": "--methods fedavg --seeds 2 --rounds 1 --no-leave-one-out",
    "genotypes": "--methods ridge --seeds 2",
}
METRICS = {"graph": "mrr", "responses": "mae", "genotypes": "accuracy"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("worlds")
    for name, make in MAKE.items():
        make().save(base / name)
    return base


@pytest.mark.parametrize(
    "modality",
    [
        "responses",
        pytest.param("graph", marks=pytest.mark.slow),
        pytest.param("genotypes", marks=pytest.mark.slow),
    ],
)
def test_run_compares_with_the_baselines_and_resumes(modality, folders, command, tmp_path):
    run = ("run", folders / modality, "--output", "out", "--quiet")
    status, _, err = command(*run, "--rounds", "2", "--evaluate-every", "1")
    assert status == 0, err
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["main_metric"] == METRICS[modality]
    with_best = set() if modality == "graph" else {"best_site"}
    assert set(result["final"]) == {"no_model", "local_only", "federated", "pooled"} | with_best
    for final in result["final"].values():
        assert final["pooled"][METRICS[modality]] is not None
    page = (tmp_path / "out" / "report.html").read_text()
    assert (result["note"][:30] in page) if modality != "graph" else not result["note"]
    status, _, err = command(*run, "--resume", "--rounds", "3")
    assert status == 0, err
    again = json.loads((tmp_path / "out" / "result.json").read_text())
    assert again["curves"]["rounds"] == [1, 2, 3]
    assert (
        again["curves"]["pooled"][METRICS[modality]][:2]
        == (result["curves"]["pooled"][METRICS[modality]])
    )


@pytest.mark.slow
@pytest.mark.parametrize("modality", MAKE)
def test_study_prints_a_table_and_writes_the_report(modality, folders, command, tmp_path):
    status, out, err = command(
        "study", folders / modality, "--output", "out", *STUDY[modality].split()
    )
    assert status == 0, err
    assert "Report: out/report.html" in out
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["sentences"][0][:20] in (tmp_path / "out" / "report.html").read_text()
    assert (tmp_path / "out" / "figures" / "overview.svg").is_file()


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("study graph --impute mean", "impute 'mean' has no effect on"),
        ("study graph --methods fedavg", "methods must be among TransE,"),
        ("study responses --splits 3", "num_splits 3 has no effect on"),
        ("run graph --algorithm fedavg", "--algorithm must be fede for a graph, got fedavg"),
        ("run graph --aggregator median", "--aggregator median has no effect with --algorithm"),
        ("run graph --model linear", "--model must be one of TransE,"),
        ("run responses --algorithm fede", "--algorithm fede is for graphs only, got fede"),
        ("run responses --early-stop mae/3", "--early-stop mae/3 is not for"),
        ("run genotypes --impute mean", "--impute mean has no effect on"),
    ],
)
def test_what_does_not_fit_is_one_sentence(words, sentence, folders, command, tmp_path):
    name, modality, *options = words.split()
    status, _, err = command(name, folders / modality, "--output", "out", *options)
    assert status == 2 and sentence in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()

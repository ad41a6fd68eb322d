"""The benchmarks of drug response and of knowledge graphs, without their training."""

import numpy as np
import pytest

from benchmarks import drug_response, knowledge_graph
from fedjax_med import datasets, tasks
from fedjax_med.studies import response_training as training

ENVIRONMENT = {"jax": "0", "processor": "abacus", "command": "python -m benchmarks.x"}


def test_knowing_nothing_of_a_patient_is_chance(shared_data_dir):
    parts = drug_response.populations(str(shared_data_dir), 2)
    assert [len(p.seeds) for p in parts] == [1] * 4 + [2] * 13
    some = [*parts[:4], parts[-1]]
    rows = drug_response.drug_means(some)
    assert [row["setting"] for row in rows] == list(drug_response.SETTINGS)
    raw = datasets.gdsc_ic50(data_dir=shared_data_dir, seed=0)
    scale, e = tasks.drug_scale(raw), raw.test.examples
    error = np.where(e["measured"], np.float64(e["y"]) - scale.center, 0)
    want = np.sqrt((error**2).sum() / e["measured"].sum())
    got = training.judged(parts[0], np.zeros(e["x"].shape))
    np.testing.assert_allclose(got["rmse"], want, rtol=1e-5)  # scaled in float32 and back
    # Five of the n drugs that are asked for, by chance: each of them is listed with 5 / n.
    number = e["measured"].sum(1)
    np.testing.assert_allclose(got["precision"], np.mean(5 / number[number > 5]), rtol=1e-12)
    assert got["spearman"] is None
    # A model that knows everything is perfect.
    perfect = training.judged(parts[2], parts[2].dataset.test.examples["y"])
    assert perfect["rmse"] == 0 and perfect["precision"] == perfect["ndcg"] == 1
    np.testing.assert_allclose(perfect["spearman"], 1, rtol=1e-12)
    # Whoever is left out is judged, on a scale that has not seen it.
    last = parts[-1]
    assert last.judged == (12,) and last.members == tuple(range(12))
    assert training.joined(parts[:2], True).train.sizes.tolist() == [622, 622]
    assert "| mean of the drug |" in drug_response.page([*rows, ENVIRONMENT])


def test_divisions_are_joined_and_collected(shared_data_dir):
    each = [datasets.umls(data_dir=shared_data_dir, clients=n) for n in knowledge_graph.DIVISIONS]
    dataset = knowledge_graph.joined(each)
    assert dataset.num_clients == 18
    rows = np.repeat(np.arange(18), dataset.train.sizes)
    np.testing.assert_array_equal(dataset.train.examples["client"], rows)
    assert knowledge_graph.collected(dataset).train.sizes.tolist() == [5216] * 3
    value = {"mean": 0.5, "half_width": 0.25}
    line = {"model": "TransE", "method": "FedE", "clients": 5, "seeds": 5, "rounds": 1}
    line |= dict.fromkeys(("mrr", "hits@1", "hits@3", "hits@10"), value)
    assert "| TransE | FedE | 0.500 ± 0.250 |" in knowledge_graph.page([line, ENVIRONMENT])


@pytest.mark.parametrize(
    "main, arguments, words",
    [
        (drug_response.main, ["--seeds", "1"], "at least 2, got '1'"),
        (drug_response.main, ["--data-dir", "/no/folder"], "/no/folder"),
        (knowledge_graph.main, ["--model", "TransH"], "'TransH'"),
        (knowledge_graph.main, ["--data-dir", "/no/folder"], "/no/folder"),
    ],
)
def test_bad_arguments_are_one_sentence(main, arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    out, message = capsys.readouterr()
    assert out == "" and words in message
    assert message.endswith(".\n") and message.count("\n") == 1

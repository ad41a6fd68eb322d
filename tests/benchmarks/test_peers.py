import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.peers import compare


def test_the_engine_without_the_rewrite_trains_the_same_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "_REST_S", 0.0)
    peer = compare.EngineInTurn()
    run, turns, said = compare.train("tabular-logreg", peer, tmp_path, rounds=3, dropout=False)
    assert len(turns.seconds) == 3 and min(map(min, turns.seconds)) > 0 and said == {}
    with np.load(tmp_path / "arrays.npz") as before:
        difference = compare.relative_difference(run, peer.parameters(tmp_path), before)
        halfway = {name: (before[name] + value) / 2 for name, value in run.variables.params.items()}
        assert compare.relative_difference(run, halfway, before) == pytest.approx(0.5, rel=1e-5)
    assert difference == 0
    peer.close()


def test_a_peer_that_is_not_asked_again_ends(tmp_path):
    peer = compare.EngineInTurn()
    loaded = workloads.load("tabular-logreg", 5)
    peer.start(loaded, tmp_path, False)
    assert peer.round([]) > 0
    peer.close()
    assert peer._thread is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--peer", "pytorch-loop"], "--torch-python goes with --peer pytorch-loop"),
        (["--peer", "no-rewrite", "--torch-python", "p"], "--torch-python goes with"),
        (["--peer", "flower"], "invalid choice: 'flower'"),
        (
            ["--peer", "pytorch-loop", "--torch-python", "/nowhere/python"],
            "cannot run /nowhere/python: No such file",
        ),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare.main(["--workload", "cifar-cnn", *arguments])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1

"""Studies of utility against epsilon: what is spent, what is chosen, and what cannot be."""

import numpy as np
import pytest

from fedjax_med.cli.app import main
from fedjax_med.privacy import RecordLevel
from fedjax_med.reporting.tradeoff_report import sentences
from fedjax_med.studies.tradeoff import run_tradeoff
from fedjax_med.studies.tradeoff_settings import TradeoffSettings, default_delta
from tests.studies.toy import make_hospitals

QUICK = {
    "rounds": 3,
    "hospital_rounds": 1,
    "steps": 4,
    "batch_size": 8,
    "clip_norms": (1.0,),
    "learning_rates": (0.3,),
    "num_seeds": 1,
    "num_splits": 2,
}


@pytest.fixture(scope="module")
def result():
    settings = TradeoffSettings(epsilons=(0.1, 500.0), **QUICK)
    return run_tradeoff(make_hospitals(missing=0.0), settings)


@pytest.mark.slow
def test_every_unit_and_epsilon_has_a_point_within_its_budget(result):
    points = {(p["unit"], p["epsilon"]): p for p in result["points"]}
    assert set(points) == {(u, e) for u in ("record", "hospital") for e in (0.1, 500.0)}
    for (_, epsilon), point in points.items():
        # The calibration gives away 1e-4 of the noise, to the safe side.
        assert 0.99 * epsilon < point["spent"] <= epsilon
        assert point["spent_rdp"] is None or point["spent_rdp"] >= point["spent"] * 0.99
        assert len(point["per_hospital"]) == 3


@pytest.mark.slow
def test_epsilon_is_that_of_an_independent_plan(result):
    """A plan made by hand from the settings of the point."""
    point = next(p for p in result["points"] if p["unit"] == "record" and p["epsilon"] == 0.1)
    sizes = [n - round(0.3 * n) for n in (30, 23, 18)]  # training patients of a split
    by_hand = RecordLevel(
        clip_norm=1.0,
        delta=point["delta"],
        batch_size=8,
        steps=4,
        noise_multiplier=point["noise_multiplier"],
        largest_batch=max(sizes),
    ).plan(sizes=[min(sizes)], rounds=3)
    assert by_hand.epsilon_after(3).value == pytest.approx(point["spent"], rel=0.02)


@pytest.mark.slow
def test_no_noise_is_no_loss_and_much_noise_is_no_use(result):
    free = result["references"]["no privacy"]["mean"]["value"]
    found = {(p["unit"], p["epsilon"]): p["mean"]["value"] for p in result["points"]}
    assert free > 0.85
    assert found["record", 500.0] > 0.8
    assert found["hospital", 500.0] > 0.8
    # At epsilon 0.1 the noise of a record is some hundred clip bounds.
    assert found["record", 0.1] < 0.8


@pytest.mark.slow
def test_sentences_tell_every_unit(result):
    said = " ".join(sentences(result))
    for words in ("Without privacy", "Protecting each record", "Protecting each hospital"):
        assert words in said


@pytest.mark.parametrize("population, delta", [(4, 0.01), (10, 0.01), (11, 1e-3), (172, 1e-4)])
def test_default_delta_is_at_most_a_tenth_of_one_over_the_units(population, delta):
    assert default_delta(population) == pytest.approx(delta)
    assert default_delta(population) <= 0.1 / population * (1 + 1e-9)


@pytest.mark.parametrize(
    "chosen, sentence",
    [
        ({"epsilons": (2.0, 1.0)}, "epsilons must ascend"),
        ({"epsilons": (0.0,)}, "epsilons must be above 0 and finite"),
        ({"clip_norms": (np.nan,)}, "clip_norms must be above 0 and finite"),
        ({"units": ()}, "units must be among record, hospital"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"num_splits": 1}, "num_splits must be at least 2, got 1"),
    ],
)
def test_bad_settings_are_refused(chosen, sentence):
    with pytest.raises(ValueError, match=sentence):
        TradeoffSettings(**chosen)


@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--epsilon 1,much", "--epsilon must be numbers separated by commas, got '1,much'"),
        pytest.param(
            "--epsilon 1 --delta 0.9", "delta must be positive and below 1/", marks=pytest.mark.slow
        ),
    ],
)
def test_bad_input_is_one_sentence(words, sentence, tmp_path, capsys):
    make_hospitals(missing=0.0).save(tmp_path / "toy")
    output = tmp_path / "output"
    quick = "--rounds 1 --seeds 1 --splits 2 --learning-rates 0.1 --clip-norms 1".split()
    arguments = ["tradeoff", str(tmp_path / "toy"), "--output", str(output), *quick]
    assert main([*arguments, *words.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not output.exists()

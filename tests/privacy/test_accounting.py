"""Epsilon of known settings, by the project's own configurations.

The numbers are those of dp-accounting 0.6.0 at its defaults, in part published elsewhere (opacus,
jax-privacy, TensorFlow Privacy, pfl-research), as noted. A PLD epsilon is kept to the 1e-4 of its
discretisation, an RDP epsilon to 1e-6.
"""

import math

import numpy as np
import pytest

from fedjax_med.privacy import (
    Banded,
    ClientLevel,
    CyclicPoisson,
    Passes,
    RecordLevel,
    Relation,
    Tree,
    everyone,
    poisson,
    uniform,
)
from fedjax_med.privacy.accounting import COARSE

slow = pytest.mark.slow

# (rate, noise multiplier, rounds, delta, RDP, PLD); populations do not enter but through delta.
SETTINGS = {
    "Abadi 2016": (0.01, 4.0, 10000, 1e-5, 1.035490, 0.946999),
    "TensorFlow Privacy": (0.0025, 1.3, 6000, 1e-5, 0.724223, 0.640111),
    "MNIST 15 epochs": (256 / 60000, 1.3, 3510, 1e-5, 0.953757, 0.863807),
    "MNIST 60 epochs": (256 / 60000, 1.1, 14040, 1e-5, 2.594363, 2.379644),
    "CIFAR": (0.08192, 3.0, 2500, 1e-5, 7.098494, 6.578904),
    "jax-privacy, 3.77 in its documentation": (0.1, 3.0, 512, 1e-6, 4.050970, 3.769687),
    "opacus": (0.04, 1.5, 2250, 1e-5, 7.329335, 6.768787),
    "1000 of a million": (0.001, 1.0, 2000, 1e-6, 0.881912, 0.252282),
    "5000 of a million": (0.005, 1.0, 2000, 1e-6, 1.725663, 1.404879),
    "hospital of 1000, 32": (0.032, 1.0, 1000, 1e-4, 6.346134, 5.679134),
    "hospital of 1000, 64": (0.064, 2.0, 2000, 1e-4, 7.032137, 6.415678),
    "hospital of 10000, 256": (0.0256, 1.5, 2000, 1e-5, 4.114572, 3.780599),
    "20 silos": (1.0, 10.0, 100, 1e-3, 3.536562, 3.138671),
    "half of 20 silos": (0.5, 5.0, 100, 1e-3, 3.624765, 3.199464),
    "low noise": (0.01, 0.5, 1000, 1e-5, 15.472133, 13.360826),
    "one Gaussian": (1.0, 1.0, 1, 1e-5, 4.728507, 4.377178),
    "ten Gaussians": (1.0, 5.0, 10, 1e-5, 2.813653, 2.594383),
}
QUICK = ("jax-privacy", "half", "20 silos", "one", "ten")


def quickly(settings):
    return [
        pytest.param(*values, id=name, marks=() if name.startswith(QUICK) else slow)
        for name, values in settings.items()
    ]


def plan_of(noise, rounds, delta, population=10, **settings):
    config = ClientLevel(clip_norm=1.0, delta=delta, noise_multiplier=noise, **settings)
    return config.plan(population=population, rounds=rounds)


@pytest.mark.parametrize("rate, noise, rounds, delta, rdp, pld", quickly(SETTINGS))
def test_clients_by_poisson_sampling(rate, noise, rounds, delta, rdp, pld):
    sampling = everyone() if rate == 1 else poisson(rate)
    got = plan_of(noise, rounds, delta, sampling=sampling).epsilon_after(rounds)
    np.testing.assert_allclose(got, (pld, rdp), atol=1e-6)
    assert got.value == got.pld < got.rdp


def test_one_gaussian_is_the_analytic_one():
    """Balle and Wang, ICML 2018, equation 6, solved for epsilon; PLD is an upper bound."""
    epsilon = plan_of(1.0, 1, 1e-5).epsilon_after(1).pld
    assert 4.377178096 <= epsilon < 4.377178096 + 1e-6
    assert plan_of(0.0, 1, 1e-5).epsilon_after(1).value == math.inf
    assert plan_of(1.0, 1, 1e-5).epsilon_after(0).value == 0


def test_replacing_costs_more_than_adding():
    got = plan_of(1.0, 1000, 1e-4, sampling=poisson(0.032), relation=Relation.REPLACE)
    assert got.epsilon_after(1000).rdp is None
    # Coarse, which is quick; the fine value is in the slow test below.
    bound = got.ledger._bound_after(1000)
    assert 9.618066 <= bound < 9.618066 + COARSE


def test_fixed_size_by_renyi():
    """Replaced neighbours differ by two clip bounds, so sigma 1 of the theorem is noise of 2."""
    for noise, epsilon in ((2.0, 12.578928), (4.0, 4.716224)):
        plan = ClientLevel(1.0, 1e-4, noise, sampling=uniform(32)).plan(
            population=1000, rounds=1000
        )
        got = plan.epsilon_after(1000)
        assert got.pld is None and got.value == got.rdp
        np.testing.assert_allclose(got.rdp, epsilon, atol=1e-6)
    # Everybody is no sample: a Gaussian with a sensitivity of two clip bounds.
    all_of_them = plan_of(10.0, 10, 1e-3, sampling=uniform(10)).epsilon_after(10)
    halved = plan_of(5.0, 10, 1e-3).epsilon_after(10)
    np.testing.assert_allclose(all_of_them, halved, atol=1e-6)


@pytest.mark.parametrize("rounds, epsilon", [(16, 5.926822), (128, 7.766238), (1024, 9.355390)])
def test_trees(rounds, epsilon):
    plan = plan_of(2.0, rounds, 1e-6, rounds, sampling=Passes(1), correlation=Tree())
    np.testing.assert_allclose(plan.epsilon_after(rounds).rdp, epsilon, atol=1e-6)
    # A second pass is a second tree.
    assert plan.epsilon_after(rounds + 1).value > plan.epsilon_after(rounds).value


@pytest.mark.parametrize(
    "bands, epsilon",
    [(1, 2.147602), pytest.param(4, 4.877240, marks=slow), pytest.param(16, 10.407182, marks=slow)],
)
def test_banded_noise_pays_for_the_larger_rate_of_its_groups(bands, epsilon):
    sampling = CyclicPoisson(0.01 * bands, bands)
    plan = plan_of(1.0, 1024, 1e-6, sampling=sampling, correlation=Banded(bands))
    np.testing.assert_allclose(plan.epsilon_after(1024).pld, epsilon, atol=1e-6)


# delta = population^-1.1 (McMahan et al., ICLR 2018, table 1); RDP, PLD to three digits.
CLIENTS = [
    (10**5, 100, 1.0, 10**3, 0.774, 0.167),
    pytest.param(10**5, 100, 1.0, 10**4, 0.884, 0.517, marks=slow),
    pytest.param(10**5, 100, 1.0, 10**5, 1.899, 1.753, marks=slow),
    pytest.param(10**6, 1000, 1.0, 10**3, 0.985, 0.211, marks=slow),
    pytest.param(10**6, 1000, 1.0, 10**4, 1.095, 0.600, marks=slow),
    pytest.param(10**6, 1000, 1.0, 10**5, 2.130, 1.986, marks=slow),
    pytest.param(10**6, 1000, 3.0, 10**3, 0.166, 0.042, marks=slow),
    pytest.param(10**6, 1000, 3.0, 10**4, 0.200, 0.140, marks=slow),
    pytest.param(10**6, 1000, 3.0, 10**5, 0.502, 0.471, marks=slow),
    pytest.param(10**6, 10**4, 1.0, 10**3, 2.634, 2.297, marks=slow),
    pytest.param(10**6, 10**4, 1.0, 10**4, 7.808, 7.310, marks=slow),
    pytest.param(10**6, 10**4, 1.0, 10**5, 30.41, 28.84, marks=slow),
]


@pytest.mark.parametrize("population, cohort, noise, rounds, rdp, pld", CLIENTS)
def test_clients_of_a_large_federation(population, cohort, noise, rounds, rdp, pld):
    plan = plan_of(
        noise, rounds, population**-1.1, population, sampling=poisson(cohort / population)
    )
    got = plan.epsilon_after(rounds)
    np.testing.assert_allclose(got.rdp, rdp, rtol=5e-4, atol=6e-4)
    np.testing.assert_allclose(got.pld, pld, rtol=5e-4, atol=6e-4)


@slow
def test_records_of_a_hospital_by_the_size_of_its_arrays():
    """Room for everybody is Poisson sampling; room for 48 is truncated, which costs."""

    def epsilon(largest):
        config = RecordLevel(1.0, 1e-4, 32, 10, noise_multiplier=1.0, largest_batch=largest)
        return config.plan(sizes=[1000], rounds=100).epsilon_after(100)

    np.testing.assert_allclose(epsilon(1000).pld, 5.679134, atol=1e-6)
    np.testing.assert_allclose(epsilon(48).pld, 6.708853, atol=1e-6)
    assert 5.679134 <= epsilon(None).pld < 5.6793


@slow
def test_replacing_costs_more_than_adding_to_the_digit():
    plan = plan_of(1.0, 1000, 1e-4, sampling=poisson(0.032), relation=Relation.REPLACE)
    np.testing.assert_allclose(plan.epsilon_after(1000).pld, 9.618066, atol=1e-6)


# epsilon 2; (rate, rounds, delta, noise by PLD). They were calibrated to about 1e-3, from above.
CALIBRATED = {
    "pfl-research CIFAR10": (1e-3, 1500, 1e-6, 0.61628),
    "pfl-research StackOverflow": (5e-3, 2000, 1e-6, 0.86411),
    "pfl-research FLAIR": (5e-3, 5000, 1e-6, 1.05626),
    "pfl-research tutorial, published": (1e-4, 100, 1e-8, 0.4975),
}


@slow
@pytest.mark.parametrize("rate, rounds, delta, noise", CALIBRATED.values(), ids=CALIBRATED)
def test_noise_for_an_epsilon(rate, rounds, delta, noise):
    config = ClientLevel(1.0, delta, epsilon=2.0, sampling=poisson(rate))
    plan = config.plan(population=10, rounds=rounds)
    np.testing.assert_allclose(plan.noise_multiplier, noise, rtol=2e-3)
    assert plan.epsilon_after(rounds).pld <= 2.0
    less = plan_of(plan.noise_multiplier * (1 - 2e-4), rounds, delta, sampling=poisson(rate))
    assert less.epsilon_after(rounds).pld > 2.0


def test_calibration_of_a_gaussian():
    """The analytic Gaussian mechanism needs 3.730632 for (1, 1e-5)."""
    plan = ClientLevel(1.0, 1e-5, epsilon=1.0).plan(population=10, rounds=1)
    # Upwards by the tolerance of the search, 1e-4, and the discretisation.
    assert 3.7306315 <= plan.noise_multiplier < 3.730632 * (1 + 2e-4)
    assert plan.epsilon_after(1).value <= 1.0


def test_a_run_is_never_told_more_than_it_spends_in_the_end():
    plan = plan_of(5.0, 100, 1e-3, sampling=poisson(0.5))
    spent = plan.spent(0, 100, 100)
    assert spent["epsilon"][-1] == plan.epsilon_after(100).pld
    np.testing.assert_allclose(spent["epsilon_rdp"][-1], 3.624765, atol=1e-6)
    assert np.all(np.diff(spent["epsilon"]) >= 0) and np.all(np.diff(spent["epsilon_rdp"]) > 0)
    for rounds in (1, 7, 16, 17, 60):
        exact = plan.epsilon_after(rounds).pld
        bound = spent["epsilon"][rounds - 1]
        # From round 17 on, that of up to an eighth more rounds.
        assert exact <= bound <= exact * (1.001 if rounds <= 16 else 1.13)
    # In chunks, as a run asks for it.
    np.testing.assert_array_equal(plan.spent(30, 5, 100)["epsilon"], spent["epsilon"][30:35])

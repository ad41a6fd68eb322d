"""ComBat against its definition on pooled rows, in float64 and with loops over hospitals."""

import numpy as np
import pytest
from scipy import optimize

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.preprocessing import Messages, fit_combat
from fedjax_med.preprocessing.empirical_bayes import shrunk_effects

SITES, SIZES = ("a", "b", "c"), (30, 12, 21)
NAMES = ("age", "sex", "v1", "v2", "v3", "v4")


def scanners(seed=0, missing=0.1, sizes=SIZES):
    """Rows whose columns v1 to v4 depend on age and sex, and on the hospital in place and scale."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(len(sizes)), sizes)
    age = rng.normal(50 + 8 * site, 10)
    sex = rng.integers(0, 2, len(site)).astype(float)
    truth = np.array([0.3, -0.2, 0.0, 1.0]) * age[:, None] + np.array([1, 2, 0, -3]) * sex[:, None]
    noise = rng.normal(0, [1, 2, 5, 3], (len(site), 4))
    shift, scale = rng.normal(0, 8, (len(sizes), 4)), rng.uniform(0.5, 2, (len(sizes), 4))
    values = 100 + truth + shift[site] + scale[site] * noise
    values[rng.random(values.shape) < missing] = np.nan
    x = np.column_stack([age, sex, values])
    arrays = ClientArrays({"x": x}, np.array(sizes))
    return FederatedDataset("scanners", SITES[: len(sizes)], arrays, feature_names=NAMES)


def definition(dataset, covariates):
    """Johnson et al. 2007, section 3, from the rows: what every value becomes."""
    x = dataset.train.examples["x"].copy()
    site = np.repeat(np.arange(dataset.num_clients), dataset.train.sizes)
    z, fitted, sigma, seen = np.full((4, len(x), 4), np.nan)
    for g in range(4):
        y, rows = x[:, 2 + g], ~np.isnan(x[:, 2 + g])
        batch = np.eye(dataset.num_clients)[site]
        design = np.column_stack([batch, x[:, covariates]])
        coefficient = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
        share = batch[rows].mean(axis=0)
        grand = share @ coefficient[: len(share)]
        fitted[:, g] = grand + x[:, covariates] @ coefficient[len(share) :]
        sigma[:, g] = np.sqrt(np.mean((y[rows] - design[rows] @ coefficient) ** 2))
        z[:, g] = (y - fitted[:, g]) / sigma[:, g]
    for i in range(dataset.num_clients):
        rows = site == i
        g_hat, d_hat = np.nanmean(z[rows], axis=0), np.nanvar(z[rows], axis=0, ddof=1)
        g_bar, t2 = g_hat.mean(), g_hat.var(ddof=1)
        m, s2 = d_hat.mean(), d_hat.var(ddof=1)
        lam, theta = (m**2 + 2 * s2) / s2, (m**3 + m * s2) / s2
        n = (~np.isnan(z[rows])).sum(axis=0)
        for g in range(4):
            here = z[rows, g][~np.isnan(z[rows, g])]

            def gamma_of(d, g=g, n=n, g_hat=g_hat, t2=t2, g_bar=g_bar):
                return (n[g] * t2 * g_hat[g] + d * g_bar) / (n[g] * t2 + d)

            def gap(d, here=here, of=gamma_of, theta=theta, lam=lam, n=n, g=g):
                squares = ((here - of(d)) ** 2).sum()
                return (theta + squares / 2) / (n[g] / 2 + lam - 1) - d

            # The two conditions are one equation for delta; its root, not an iteration.
            d = optimize.brentq(gap, 1e-9, 1e3, xtol=1e-14, rtol=1e-14)
            seen[rows, g] = (z[rows, g] - gamma_of(d)) / np.sqrt(d) * sigma[rows, g]
    x[:, 2:] = seen + fitted
    return x


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
def test_equal_to_the_definition_on_pooled_rows(covariates):
    dataset, messages = scanners(), Messages()
    combat = fit_combat(dataset, covariates=covariates, columns=NAMES[2:], messages=messages)
    want = definition(dataset, [NAMES.index(c) for c in covariates])
    got = combat.apply(dataset).train.examples["x"]
    np.testing.assert_allclose(got, want, rtol=1e-8)
    np.testing.assert_array_equal(got[:, :2], dataset.train.examples["x"][:, :2])
    leaves = {m.statistic: m.leaves for m in messages.entries}
    assert leaves.pop("ComBat: hospitals") == "per-site"
    assert set(leaves.values()) == {"sum"}


def test_hospitals_differ_no_more_and_age_still_counts():
    dataset = scanners(missing=0.0, sizes=(300, 120, 210))
    combat = fit_combat(dataset, covariates=("age", "sex"))
    assert combat.columns == NAMES[2:]
    x = combat.apply(dataset).train.examples["x"]
    site = np.repeat(np.arange(3), (300, 120, 210))
    design = np.column_stack([np.eye(3)[site], x[:, :2]])
    coefficient = np.linalg.lstsq(design, x[:, 2:], rcond=None)[0]
    # What is left of the effects of hospitals (8 on average) is noise of 5 / sqrt(100) and shrinking.
    assert np.ptp(coefficient[:3], axis=0).max() < 1
    np.testing.assert_allclose(coefficient[3], [0.3, -0.2, 0, 1], atol=0.1)


def test_a_new_hospital_is_estimated_as_the_others_were():
    dataset = scanners()
    combat = fit_combat(dataset, covariates=("age",))
    rows = dataset.train.client(1)["x"]
    again = combat.with_site("d", rows)
    np.testing.assert_allclose(again.location[3], combat.location[1], rtol=1e-10)
    np.testing.assert_allclose(again.spread[3], combat.spread[1], rtol=1e-10)
    np.testing.assert_allclose(again.transform(rows, "d"), combat.transform(rows, "b"), rtol=1e-12)
    np.testing.assert_array_equal(again.location[:3], combat.location)
    assert combat.with_site("b", rows).sites == ("a", "c", "b")
    with pytest.raises(DataError, match="no hospital 'd'"):
        combat.transform(rows, "d")


def test_hospitals_with_few_values_keep_them():
    dataset = scanners()
    x = dataset.train.examples["x"].copy()
    x[30:41, 2] = np.nan  # one value is left at b
    few = dataset.replace(train=ClientArrays({"x": x}, dataset.train.sizes))
    combat = fit_combat(few, columns=NAMES[2:])
    assert combat.location[1, 0] == 0 and combat.spread[1, 0] == 1
    assert (combat.location[0] != 0).all()


def test_shrunk_effects_have_their_limits():
    count, g, d = np.array([9.0, 9, 9]), np.array([1.0, 1, 1]), np.array([2.0, 2, 2])
    # No column differs from another: the priors are certain.
    gamma, delta = shrunk_effects(count, g, d)
    np.testing.assert_allclose(gamma, 1, rtol=1e-12)
    np.testing.assert_allclose(delta, 2, rtol=1e-12)
    # A single column has nobody to learn from, and many values nothing to learn.
    assert shrunk_effects(count[:1], g[:1], d[:1]) == (g[:1], d[:1])
    g, d = np.array([1.0, 2, 4]), np.array([1.0, 2, 5])
    gamma, delta = shrunk_effects(count * 1e9, g, d)
    np.testing.assert_allclose([gamma, delta], [g, d], rtol=1e-7)


def test_effects_that_cannot_be_told_apart_are_refused():
    dataset = scanners()
    x = dataset.train.examples["x"].copy()
    x[:, 1] = np.repeat([0, 1, 1], SIZES)  # sex is the hospital
    confounded = dataset.replace(train=ClientArrays({"x": x}, dataset.train.sizes))
    with pytest.raises(DataError, match="age, sex must vary within hospitals"):
        fit_combat(confounded, covariates=("age", "sex"))
    with pytest.raises(DataError, match="both covariate and harmonised"):
        fit_combat(dataset, covariates=("age",), columns=("age", "v1"))
    with pytest.raises(DataError, match="unknown column 'v9'"):
        fit_combat(dataset, columns=("v9",))

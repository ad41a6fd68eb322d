from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import optimize, stats

from fedjax_med import genomics
from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.preprocessing import Messages


@pytest.fixture(scope="module")
def covariates():
    rng = np.random.default_rng(5)
    # In unlike units, as age in years and a share are.
    return np.column_stack([rng.normal(60, 10, 62), rng.uniform(0, 1e-3, 62)])


@pytest.fixture(scope="module")
def outcome(pooled, covariates):
    rng = np.random.default_rng(6)
    g, _ = pooled
    return 100 + 3 * g[:, 0] + 0.1 * covariates[:, 0] + rng.normal(size=62)


@pytest.fixture(scope="module")
def binary(outcome):
    return (outcome > np.median(outcome)).astype(np.int32)


def test_linear_is_least_squares_of_the_pooled_people(hospitals, pooled, outcome, covariates):
    messages = Messages()
    got = genomics.linear_association(hospitals, outcome, covariates, messages=messages)
    g, _ = pooled
    for j in range(g.shape[1]):
        design = np.column_stack([g[:, j], np.ones(62), covariates])
        # Unit columns: the normal equations of the reference would lose digits otherwise.
        unit = np.linalg.norm(design, axis=0)
        q, r = np.linalg.qr(design / unit)
        beta = np.linalg.solve(r, q.T @ outcome) / unit
        residual = outcome - design @ beta
        variance = residual @ residual / (62 - 4) * np.linalg.inv(r.T @ r)[0, 0] / unit[0] ** 2
        t = beta[0] / np.sqrt(variance)
        np.testing.assert_allclose(got.effect[j], beta[0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(got.se[j], np.sqrt(variance), rtol=1e-8)
        want = (np.log(2) + stats.t.logsf(abs(t), 58)) / np.log(10)
        np.testing.assert_allclose(got.log10_p[j], want, rtol=1e-7, atol=1e-9)
    assert got.log10_p[0] < -10 and got.log10_p.argmin() == 0
    assert [(m.leaves, m.passes) for m in messages.entries] == [("sum", 1), ("sum", 1)]
    assert messages.entries[1].shapes["with_covariates"] == (40, 3)


def test_hospital_indicators_are_an_intercept_each(hospitals, pooled, outcome):
    """Frisch and Waugh: as if every hospital's means had been taken away."""
    indicators = genomics.client_indicators(hospitals)
    assert indicators.shape == (62, 2) and indicators.sum(axis=0).tolist() == [9, 30]
    shift = np.repeat([0.0, 50.0, -20.0], hospitals.train.sizes)
    got = genomics.linear_association(hospitals, outcome + shift, indicators)
    g, _ = pooled
    means = np.column_stack([np.ones(62), indicators])
    away = np.eye(62) - means @ np.linalg.pinv(means)
    want = ((away @ g) * (away @ outcome)[:, None]).sum(axis=0) / ((away @ g) ** 2).sum(axis=0)
    np.testing.assert_allclose(got.effect, want, rtol=1e-8, atol=1e-9)


def test_constant_snps_have_no_association(outcome):
    x = np.random.default_rng(0).integers(0, 3, (62, 3)).astype(np.float32)
    x[:, 1] = 2
    x[:, 2] = np.nan
    constant = FederatedDataset("c", ("A",), ClientArrays({"x": x}, np.array([62])))
    got = genomics.linear_association(constant, outcome)
    assert np.isnan(got.log10_p).tolist() == [False, True, True]
    assert np.isnan(got.effect).tolist() == [False, True, True]


def test_score_test_is_that_of_the_pooled_people(hospitals, pooled, binary, covariates):
    got = genomics.logistic_score_test(hospitals, binary, covariates)
    g, _ = pooled
    c = np.column_stack([np.ones(62), (covariates - covariates.mean(0)) / covariates.std(0)])
    p = 1 / (1 + np.exp(-c @ fitted(c, binary)))
    w = p * (1 - p)
    inverse = np.linalg.inv(c.T @ (w[:, None] * c))
    cross = g.T @ (w[:, None] * c)
    variance = (w[:, None] * g**2).sum(axis=0) - np.einsum("sk,kl,sl->s", cross, inverse, cross)
    z = g.T @ (binary - p) / np.sqrt(variance)
    np.testing.assert_allclose(got.statistic, z, rtol=1e-7, atol=1e-9)
    want = (np.log(2) + stats.norm.logsf(np.abs(z))) / np.log(10)
    np.testing.assert_allclose(got.log10_p, want, rtol=1e-6, atol=1e-9)


def fitted(design, y):
    """Maximum likelihood by a general optimiser, polished by Newton's steps of its own."""

    def loss(beta):
        eta = design @ beta
        return np.logaddexp(0, eta).sum() - y @ eta

    beta = optimize.minimize(loss, np.zeros(design.shape[1])).x
    for _ in range(3):
        p = 1 / (1 + np.exp(-design @ beta))
        information = design.T @ ((p * (1 - p))[:, None] * design)
        beta = beta + np.linalg.solve(information, design.T @ (y - p))
    return beta


def test_logistic_is_maximum_likelihood_of_the_pooled_people(hospitals, pooled, binary, covariates):
    chosen = [0, 7, 12]
    got = genomics.logistic_association(hospitals, binary, chosen, covariates)
    g, _ = pooled
    standard = (covariates - covariates.mean(0)) / covariates.std(0)
    for place, j in enumerate(chosen):
        design = np.column_stack([g[:, j], np.ones(62), standard])
        beta = fitted(design, binary)
        p = 1 / (1 + np.exp(-design @ beta))
        se = np.sqrt(np.linalg.inv(design.T @ ((p * (1 - p))[:, None] * design))[0, 0])
        np.testing.assert_allclose(got.effect[place], beta[0], rtol=1e-7)
        np.testing.assert_allclose(got.se[place], se, rtol=1e-7)
        want = (np.log(2) + stats.norm.logsf(abs(beta[0] / se))) / np.log(10)
        np.testing.assert_allclose(got.log10_p[place], want, rtol=1e-6)


def test_separated_and_constant_snps_are_not_determined(hospitals, binary):
    x = hospitals.train.examples["x"][:, :3].copy()
    x[:, 1] = 2 * binary
    x[:, 2] = 1
    separated = FederatedDataset(
        "s", hospitals.client_names, ClientArrays({"x": x}, hospitals.train.sizes)
    )
    got = genomics.logistic_association(separated, binary, [0, 1, 2])
    assert np.isnan(got.effect).tolist() == [False, True, True]
    assert np.isfinite(got.log10_p[0])


@pytest.mark.parametrize(
    "freedom, t", [(10, 0.3), (10, 4.0), (100, 30.0), (940, 60.0), (1000, 400.0)]
)
def test_p_values_of_t_have_their_digits_far_out(freedom, t):
    # Abramowitz and Stegun 26.7.4, for even degrees of freedom, with 1500 digits.
    with localcontext() as context:
        context.prec = 1500
        x = Decimal(t) / Decimal(freedom).sqrt()
        cosine2 = 1 / (1 + x * x)
        total = term = Decimal(1)
        for k in range(1, freedom // 2):
            term = term * (2 * k - 1) / (2 * k) * cosine2
            total += term
        want = float((1 - x * cosine2.sqrt() * total).log10())
    # betainc itself is good to some 1e-12 of p; log10 p is small near p = 1.
    np.testing.assert_allclose(
        genomics.log10_p_of_t(np.array([t, -t]), float(freedom)), want, rtol=1e-10, atol=1e-11
    )


def test_p_values_of_z_have_their_digits_far_out():
    got = genomics.log10_p_of_z(np.array([0.0, 1.959963984540054, -40.0]))
    # Far out: the density over z, less 1 / z^2 of it and 3 / z^4 of it (Mills' ratio).
    far = (
        -800 - np.log(40) - 0.5 * np.log(2 * np.pi) + np.log(2) + np.log1p(-1 / 1600 + 3 / 1600**2)
    )
    np.testing.assert_allclose(got, [0, np.log10(0.05), far / np.log(10)], rtol=1e-9, atol=1e-15)


def test_genomic_control_is_how_much_chi_squares_are_inflated():
    chi2 = stats.chi2.ppf((np.arange(1001) + 0.5) / 1001, 1)
    for inflation in (1.0, 1.5, 0.7):
        log10_p = genomics.log10_p_of_z(np.sqrt(inflation * chi2))
        assert genomics.genomic_control(np.append(log10_p, np.nan)) == pytest.approx(inflation)
    with pytest.raises(ValueError, match="must have values for genomic control, got none"):
        genomics.genomic_control(np.array([np.nan]))


def test_arguments_that_do_not_fit_are_refused(hospitals, outcome, binary):
    for bad, message in (
        (outcome[1:], r"outcome must be finite \[62\], .* got shape \[61\]"),
        (np.where(np.arange(62) == 4, np.nan, outcome), r"got shape \[62\] with nan"),
    ):
        with pytest.raises(ValueError, match=message):
            genomics.linear_association(hospitals, bad)
    with pytest.raises(ValueError, match=r"covariates must be finite \[62, covariates\].* \[62\]"):
        genomics.linear_association(hospitals, outcome, outcome)
    with pytest.raises(ValueError, match="covariates must be linearly independent"):
        genomics.linear_association(hospitals, outcome, np.ones((62, 1)))
    with pytest.raises(ValueError, match="outcome must be 0 or 1, got 2"):
        genomics.logistic_score_test(hospitals, binary + 1)
    with pytest.raises(ValueError, match="outcome must have both 0 and 1, got only 1"):
        genomics.logistic_score_test(hospitals, np.ones(62))
    with pytest.raises(ValueError, match="must not tell the outcomes 0 and 1 apart"):
        genomics.logistic_score_test(hospitals, binary, binary[:, None].astype(float))

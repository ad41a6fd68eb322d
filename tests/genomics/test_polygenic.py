import numpy as np
import pytest

from fedjax_med import genomics
from fedjax_med.datasets import Snps
from fedjax_med.genomics import Association
from fedjax_med.preprocessing import Messages


def test_ridge_is_that_of_the_pooled_people(hospitals, pooled):
    g, mean = pooled
    rng = np.random.default_rng(1)
    y = 7 + g[:, :2] @ np.array([[1.0, 0.0], [0.0, -2.0]]) + rng.normal(size=(62, 2))
    messages = Messages()
    got = genomics.ridge_score(hospitals, y, heritability=0.4, messages=messages)
    z = g / np.sqrt(mean * (1 - mean / 2))  # 2 p (1 - p) with p = mean / 2
    penalty = 40 * 0.6 / 0.4
    # In the dual, a system of people and not of SNPs: another way to the same minimum.
    dual = np.linalg.solve(z @ z.T + penalty * np.eye(62), y - y.mean(axis=0))
    want = y.mean(axis=0) + z @ (z.T @ dual)
    x = hospitals.train.examples["x"]
    np.testing.assert_allclose(got.predict(x), want, rtol=1e-6)  # tolerance 1e-8, conditioned
    alone = genomics.ridge_score(hospitals, y[:, 1], heritability=0.4)
    assert alone.weights.shape == (40,)
    np.testing.assert_allclose(alone.predict(x), want[:, 1], rtol=1e-6)
    assert {m.leaves for m in messages.entries} == {"sum"}
    with pytest.raises(ValueError, match="have not converged after max_passes=1"):
        genomics.ridge_score(hospitals, y, max_passes=1)
    with pytest.raises(ValueError, match=r"heritability must be above 0 and below 1, got 1\.0"):
        genomics.ridge_score(hospitals, y, heritability=1.0)


def test_of_correlated_snps_the_best_is_taken(hospitals, pooled):
    doubled = genomics.select_snps(hospitals, [0, 0, 1, 2, 0])
    log10_p = np.array([-5.0, -6.0, -4.5, -3.0, np.nan])
    effect = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = Association(effect, np.ones(5), effect, log10_p)
    y = np.arange(62.0)
    got = genomics.clumped_score(doubled, y, found, threshold=1e-4, max_r2=0.5)
    # SNP 0 is SNP 1 with a larger p-value; 3 and 4 are not below the threshold.
    assert got.weights.tolist() == [0, 2, 3, 0, 0] and got.intercept == pytest.approx(30.5)
    g, _ = pooled
    x = doubled.train.examples["x"]
    np.testing.assert_allclose(got.predict(x), 30.5 + 2 * g[:, 0] + 3 * g[:, 1], rtol=1e-12)
    apart = Snps(tuple("abcde"), ("1",) * 5, np.array([0, 10, 20, 30, 40]), ("A",) * 5, ("G",) * 5)
    near = genomics.clumped_score(doubled, y, found, max_r2=0.5, snps=apart, window=10)
    far = genomics.clumped_score(doubled, y, found, max_r2=0.5, snps=apart, window=9)
    assert near.weights.tolist() == got.weights.tolist()
    assert far.weights.tolist() == [1, 2, 3, 0, 0]
    nothing = genomics.clumped_score(doubled, y, found, threshold=1e-9)
    assert (nothing.predict(x) == 30.5).all()


def test_explained_is_a_squared_correlation():
    y = np.array([1.0, 2.0, 4.0, 3.0])
    assert genomics.explained(5 - 2 * y, y) == pytest.approx(1)
    assert genomics.explained(np.array([1.0, -3, 0, 0]), y) == 0  # y less its mean: -1.5, -0.5
    assert genomics.explained(np.ones(4), y) == 0


def test_simulated_outcomes_are_what_they_say(hospitals, pooled):
    g, mean = pooled
    made = genomics.simulate_phenotype(hospitals, heritability=0.3, num_causal=5, seed=2)
    np.testing.assert_allclose(made.genetic, g[:, made.causal] @ made.effects, rtol=1e-10)
    assert made.genetic.std() == pytest.approx(np.sqrt(0.3))
    assert np.minimum(mean, 2 - mean)[made.causal].min() >= 0.1
    none = genomics.simulate_phenotype(hospitals, heritability=0.0, num_causal=5, seed=2)
    assert (none.genetic == 0).all()
    shifted = genomics.simulate_phenotype(
        hospitals, heritability=0.0, num_causal=5, seed=2, site_shift=100.0
    )
    north, south, east = np.split(shifted.outcome - none.outcome, [23, 32])
    for shift in (north, south, east):
        np.testing.assert_allclose(shift, shift[0], rtol=1e-12)
    assert len({north[0], south[0], east[0]}) == 3
    again = genomics.simulate_phenotype(hospitals, heritability=0.3, num_causal=5, seed=2)
    np.testing.assert_array_equal(again.outcome, made.outcome)
    with pytest.raises(ValueError, match=r"num_causal must be between 1 and 40, .* got 41"):
        genomics.simulate_phenotype(hospitals, num_causal=41)
    with pytest.raises(ValueError, match="heritability must be between 0 and 1"):
        genomics.simulate_phenotype(hospitals, heritability=1.5)


def test_figures_show_every_snp_and_person(hospitals):
    from fedjax_med.reporting import genomics_figures as figures

    log10_p = -np.linspace(0.1, 9, 40)
    chromosome = ["1"] * 20 + ["2"] * 20
    figure = figures.manhattan(log10_p, chromosome, np.tile(np.arange(20) * 1000, 2), marked=[3])
    lines = figure.axes[0].get_lines()
    drawn = np.concatenate([line.get_xydata() for line in lines if len(line.get_xydata()) == 20])
    np.testing.assert_allclose(np.sort(drawn[:, 1]), np.sort(-log10_p))
    # The second chromosome is to the right of the first.
    assert lines[1].get_xdata().min() > lines[0].get_xdata().max()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["1", "2"]
    quantiles = figures.qq({"all": log10_p})
    seen = quantiles.axes[0].get_lines()[1].get_xydata()
    assert len(seen) == 40 and seen[0, 1] == 9 and seen[0, 0] == -np.log10(0.5 / 40)
    (text,) = quantiles.axes[0].get_legend().get_texts()
    assert text.get_text().startswith("all, $\\lambda$ = ")
    people = figures.structure(np.ones((62, 2)), hospitals.train.sizes, hospitals.client_names)
    assert [len(line.get_xdata()) for line in people.axes[0].get_lines()] == [23, 9, 30]
    with pytest.raises(ValueError, match="got 40, 40 and 39"):
        figures.manhattan(log10_p, chromosome, np.arange(39))

"""Models of drug response against their definitions in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med import models
from fedjax_med.models import response
from fedjax_med.models.factorisation import fold_in

PATIENTS, DRUGS = 5, 7


def rows(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((PATIENTS, DRUGS))
    x[rng.random(x.shape) < 0.4] = np.nan
    x[0] = np.nan  # a patient of whom nothing is known
    return x


def test_rows_are_ridge_regressions_of_what_is_known():
    x, rng, ridge = rows(), np.random.default_rng(1), 0.7
    columns, bias = rng.standard_normal((DRUGS, 3)), rng.standard_normal(DRUGS)
    with jax.enable_x64(True):
        params = {"columns": jnp.asarray(columns), "bias": jnp.asarray(bias)}
        got = fold_in(params, jnp.asarray(x), ridge)
    for row, z in zip(x, np.asarray(got), strict=True):
        known = ~np.isnan(row)
        # The ridge regression as a least squares problem with rows for the penalty.
        left = np.concatenate([columns[known], np.sqrt(ridge) * np.eye(3)])
        right = np.concatenate([row[known] - bias[known], np.zeros(3)])
        # float64 and well conditioned; both solve a 3 x 3 problem.
        np.testing.assert_allclose(z, np.linalg.lstsq(left, right)[0], rtol=1e-10, atol=1e-12)
    assert not got[0].any()


def test_the_autoencoder_is_its_definition():
    x = rows()
    model = models.response_autoencoder(drug_size=3, hidden=4, patient_size=2)
    with jax.enable_x64(True):
        params = model.init(jax.random.key(0), jnp.asarray(x)).params
        params = jax.tree.map(lambda p: p + 0.1, params)  # biases that show
        got = response.decode(params, response.encode(params, jnp.asarray(x)))
    p = jax.tree.map(np.float64, params)
    for row, outputs in zip(x, np.asarray(got), strict=True):
        known = [j for j in range(DRUGS) if not np.isnan(row[j])]
        e, d = p["encoder"], p["decoder"]
        h = sum(
            (row[j] * p["drugs"][j] @ e["value"] + p["drugs"][j] @ e["known"] for j in known),
            start=np.zeros(4),
        )
        h = np.maximum(h / np.sqrt(1 + len(known)) + e["hidden_bias"], 0)
        patient = h @ e["kernel"] + e["bias"]
        g = np.maximum(patient @ d["kernel"] + d["hidden_bias"], 0) @ d["to_drugs"]
        np.testing.assert_allclose(outputs, d["bias"] + p["drugs"] @ g, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: models.response_factorisation(0), "rank must be at least 1, got 0."),
        (
            lambda: models.response_factorisation(2, ridge=0.0),
            "ridge must be positive, got 0.0.",
        ),
        (
            lambda: models.response_autoencoder(hidden=0),
            "hidden must be at least 1, got 0.",
        ),
    ],
)
def test_sizes_that_make_no_model_are_refused(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == words

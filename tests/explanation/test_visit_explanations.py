"""Explanations of models of visits, against records that were changed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedjax_med.datasets import health_records
from fedjax_med.engine import Batch
from fedjax_med.evaluation import binary_metrics
from fedjax_med.explanation.visits import code_attributions, code_importance, visit_effects
from fedjax_med.models import visits

DATASET = health_records(num_hospitals=3, num_patients=400, max_visits=5)
PATIENTS = {name: leaf[:12] for name, leaf in DATASET.splits()["test"].examples.items()}


@pytest.fixture(scope="module")
def trained():
    """A GRU with weights of no meaning, large enough that nothing is linear; and its outputs."""
    model = visits.visit_gru(visits.visit_inputs(DATASET), dim=4)
    variables = model.init(jax.random.key(0), {k: v[:1] for k, v in PATIENTS.items()})
    leaves, structure = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    variables = jax.tree.unflatten(
        structure, [x + rng.normal(0, 0.6, x.shape).astype(np.float32) for x in leaves]
    )

    @jax.jit
    def apply(variables, examples):
        num = examples["visits"].shape[0]
        batch = Batch(examples, jnp.ones(num, bool), jnp.float32(num), jax.random.key(0))
        return model.apply(variables, batch, False)[0][:, 0]

    def outputs(examples, variables=variables):
        return np.asarray(apply(variables, examples))

    return model, variables, outputs


def test_parts_of_codes_add_up_to_what_codes_change(trained):
    model, variables, outputs = trained
    nothing = {**PATIENTS, "codes": np.zeros_like(PATIENTS["codes"])}
    change = outputs(PATIENTS) - outputs(nothing)
    parts = code_attributions(model, variables, PATIENTS, steps=24)
    assert parts.shape == PATIENTS["codes"].shape and np.abs(change).max() > 0.3
    # The integral of a smooth function at 24 points, and float32 sums of some dozens of parts.
    np.testing.assert_allclose(parts.sum(axis=(1, 2)), change, atol=2e-4)
    assert not parts[PATIENTS["codes"] == 0].any()


def test_a_part_is_the_slope_where_the_model_is_nearly_linear(trained):
    """With embeddings a hundredth as large, taking one code away changes its part and no more."""
    model, variables, outputs = trained
    small = jax.tree.map(lambda x: x, variables)
    small.params["visit"]["codes"] = small.params["visit"]["codes"] / 100
    parts = code_attributions(model, small, PATIENTS, steps=24)
    whole = outputs(PATIENTS, small)
    for row in range(3):
        visit, slot = np.argwhere(PATIENTS["codes"][row] > 0)[-1]
        codes = PATIENTS["codes"].copy()
        codes[row, visit, slot] = 0
        change = (whole - outputs({**PATIENTS, "codes": codes}, small))[row]
        # Second-order terms are a hundredth of the first.
        np.testing.assert_allclose(parts[row, visit, slot], change, rtol=0.1, atol=2e-5)


def test_effects_of_visits_are_those_of_records_without_them(trained):
    model, variables, outputs = trained
    effects = visit_effects(model, variables, PATIENTS)
    whole = outputs(PATIENTS)
    for visit in range(5):
        silent = {name: leaf.copy() for name, leaf in PATIENTS.items()}
        silent["codes"][:, visit] = 0
        silent["labs"][:, visit] = np.nan
        real = visit < PATIENTS["visits"]
        want = np.where(real, whole - outputs(silent), 0)
        np.testing.assert_allclose(effects[:, visit], want, atol=1e-5)  # float32 outputs
    assert np.abs(effects).max() > 0.05


def test_importance_is_what_the_metric_loses_without_the_codes(trained):
    model, variables, outputs = trained
    arrays = DATASET.splits()["test"]
    names = DATASET.feature_names
    groups = {
        "hypertension": [i for i, name in enumerate(names) if name.startswith("hypertension")],
        "unrelated": [i for i, name in enumerate(names) if name.startswith("unrelated")],
        "padding": [0],
    }
    auroc = binary_metrics()["auroc"]
    found = code_importance(model, variables, DATASET, auroc, groups, batch_size=32)
    assert found.groups == tuple(groups)
    sizes, e = arrays.sizes, arrays.examples
    before = outputs(e)
    after = [
        outputs({**e, "codes": np.where(np.isin(e["codes"], codes), 0, e["codes"])})
        for codes in groups.values()
    ]
    of_hospital = {}
    for i, hospital in enumerate(DATASET.client_names):
        own = slice(*arrays.offsets[i : i + 2])
        auroc_of = lambda out, own=own: roc_auc_score(e["y"][own], out[own])
        of_hospital[hospital] = [auroc_of(before) - auroc_of(out) for out in after]
        np.testing.assert_allclose(found.per_hospital[hospital], of_hospital[hospital], atol=1e-6)
    want = np.average([*of_hospital.values()], axis=0, weights=sizes)
    np.testing.assert_allclose(found.federated, want, atol=1e-6)
    assert found.federated[2] == 0 and np.abs(found.federated[:2]).max() > 0
    assert found.num_patients == dict(zip(DATASET.client_names, sizes.tolist(), strict=True))
    assert found.as_dict()["groups"] == list(groups)


def test_what_cannot_be_explained_is_refused(trained):
    model, variables, _ = trained
    auroc = binary_metrics()["auroc"]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        code_attributions(model, variables, PATIENTS, steps=0)
    with pytest.raises(ValueError, match=r"groups must each have a code, got \{\}"):
        code_importance(model, variables, DATASET, auroc, {})
    with pytest.raises(ValueError, match=r"split must have examples, .* has no 'validation'"):
        code_importance(model, variables, DATASET, auroc, {"a": [1]}, split="validation")

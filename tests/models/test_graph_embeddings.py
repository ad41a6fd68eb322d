"""Scores of triples against complex arithmetic in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med.models import graph_embeddings

SIZE, MARGIN = 3, 2.0


def as_complex(v):
    return v[..., :SIZE] + 1j * v[..., SIZE:]


# Name: (model, score of float64 vectors).
CASES = {
    "TransE": (
        lambda: graph_embeddings.trans_e(SIZE, margin=MARGIN),
        lambda h, r, t: MARGIN - np.abs(h + r - t).sum(-1),
    ),
    "DistMult": (
        lambda: graph_embeddings.dist_mult(SIZE),
        lambda h, r, t: np.einsum("ni,ni,ni->n", h, r, t),
    ),
    "ComplEx": (
        lambda: graph_embeddings.compl_ex(SIZE),
        lambda h, r, t: np.real(as_complex(h) * as_complex(r) * as_complex(t).conj()).sum(-1),
    ),
    "RotatE": (
        lambda: graph_embeddings.rotat_e(SIZE, margin=MARGIN),
        lambda h, r, t: MARGIN - np.abs(as_complex(h) * np.exp(1j * r) - as_complex(t)).sum(-1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_are_their_definitions(name):
    make, definition = CASES[name]
    model = make()
    params = model.init(jax.random.key(0), 6, 2)
    assert {k: len(v) for k, v in params.items()} == {"entities": 6, "relations": 2}
    head, relation, tail = np.array([[0, 1, 2, 5], [0, 1, 1, 0], [3, 4, 2, 0]])
    e, r = (np.asarray(params[k], np.float64) for k in ("entities", "relations"))
    want = definition(e[head], r[relation], e[tail])
    got = np.asarray(model.triples(params, *map(jnp.asarray, (head, relation, tail))))
    # A sum of three terms of at most a few units in float32.
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    # One head against all tails is a column of the same scores.
    every = model.triples(params, jnp.asarray(head)[:, None], relation[:, None], np.arange(6)[None])
    np.testing.assert_allclose(np.asarray(every)[np.arange(4), tail], got, rtol=1e-6, atol=1e-6)


def test_what_a_model_can_say():
    scores = {}
    for name, (make, _) in CASES.items():
        model = make()
        params = model.init(jax.random.key(1), 2, 1)
        scores[name] = [float(model.triples(params, a, 0, 1 - a)) for a in (0, 1)]
    # DistMult takes a triple for its reverse, the others do not.
    assert abs(scores["DistMult"][0] - scores["DistMult"][1]) < 1e-6
    for name in ("TransE", "ComplEx", "RotatE"):
        assert abs(scores[name][0] - scores[name][1]) > 1e-3


def test_rotat_e_has_a_gradient_where_a_triple_is_perfect():
    model = graph_embeddings.rotat_e(2)
    params = {"entities": jnp.ones((1, 4)), "relations": jnp.zeros((1, 2))}
    gradient = jax.grad(lambda p: model.triples(p, 0, 0, 0))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: graph_embeddings.dist_mult(0), "size must be at least 1, got 0."),
        (
            lambda: graph_embeddings.trans_e(margin=0.0),
            "margin must be positive, got 0.0.",
        ),
    ],
)
def test_sizes_that_make_no_model_are_refused(make, words):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == words

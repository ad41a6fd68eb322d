"""Link prediction: loss and ranks against NumPy, FedE's server, learning what one hospital cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_expit, softmax

from fedjax_med import algorithms, models, tasks
from fedjax_med.aggregation import mean_over_holders
from fedjax_med.data import FederatedDataset
from fedjax_med.engine import Batch, epochs, placement, simulate
from fedjax_med.evaluation.recommendation import filtered_ranks

ENTITIES = 12


def triples(client, relation, pairs):
    pairs = np.array(pairs, np.int32)
    filled = np.full(len(pairs), 1, np.int32)
    return {
        "head": pairs[:, 0],
        "relation": relation * filled,
        "tail": pairs[:, 1],
        "client": client * filled,
    }


def make_dataset():
    """A circle of entities: one hospital knows steps of 1, the other steps of 2, of some entities."""
    steps = [[(i, (i + k) % ENTITIES) for i in range(ENTITIES)] for k in (1, 2)]
    train = {"North": triples(0, 0, steps[0]), "South": triples(1, 1, steps[1][:7])}
    test = {"South": triples(1, 1, [(7, 9), (6, 8)][1:])}
    return FederatedDataset.from_clients(
        train,
        test=test,
        name="circle",
        feature_names=("next", "next but one"),
        label_names=tuple(f"e{i}" for i in range(ENTITIES)),
    )


DATASET = make_dataset()
GRAPH = tasks.graph_of(DATASET)


def batch_of(examples):
    size = len(examples["head"])
    examples = jax.tree.map(jnp.asarray, examples)
    return Batch(examples, jnp.ones(size, bool), jnp.float32(size), jax.random.key(0))


def complex_score(head, relation, tail):
    """ComplEx in complex arithmetic."""
    h, r, t = (v[:4] + 1j * v[4:] for v in (head, relation, tail))
    return np.real(h * r * t.conj()).sum()


def test_a_graph_knows_its_triples_and_whose_entities_they_have():
    assert GRAPH.known.sum() == 12 + 7 and GRAPH.trained.sum() == 12 + 7
    assert GRAPH.known[1, 6, 8] and not GRAPH.known[1, 8, 6]
    assert GRAPH.own[0].all() and GRAPH.own[1].tolist() == [i < 9 for i in range(12)]


def test_the_loss_is_that_of_hard_negatives_of_the_clients_own_entities():
    asked = []
    model = models.compl_ex(4)

    def score(head, relation, tail):
        asked.append([np.asarray(v, np.float64) for v in (head, relation, tail)])
        return model.score(head, relation, tail)

    task = tasks.link_prediction(
        model._replace(score=score), GRAPH, num_negatives=5, temperature=2.0
    )
    variables, examples = task.init(0), DATASET.train.client(1)
    losses, _ = task.loss(variables, batch_of(examples))
    entities = np.float64(variables.params["entities"])
    heads = [[int(np.abs(entities - v).sum(1).argmin()) for v in row] for row in asked[0][0]]
    tails = [[int(np.abs(entities - v).sum(1).argmin()) for v in row] for row in asked[1][2]]
    drawn = {e for row in heads + tails for e in row}
    assert drawn <= set(range(9)) and len(drawn) > 6  # 70 draws of the hospital's nine entities
    relations = np.float64(variables.params["relations"])
    for i, (h, r, t) in enumerate(
        zip(*(examples[k] for k in ("head", "relation", "tail")), strict=True)
    ):
        wrong = [(a, t) for a in heads[i]] + [(h, b) for b in tails[i]]
        wrong = [pair for pair in wrong if not GRAPH.trained[r, pair[0], pair[1]]]
        s = np.array([complex_score(entities[a], relations[r], entities[b]) for a, b in wrong])
        own = complex_score(entities[h], relations[r], entities[t])
        want = -(log_expit(own) + softmax(2 * s) @ log_expit(-s)) / 2
        np.testing.assert_allclose(losses[i], want, rtol=1e-4)  # float32 exponentials


def test_ranks_are_filtered_and_among_the_clients_entities():
    task = tasks.link_prediction(models.compl_ex(4), GRAPH)
    variables, e = task.init(0), DATASET.train.client(1)
    got = task.metrics(variables, batch_of(e))
    everyone = np.arange(ENTITIES)
    model, params = models.compl_ex(4), variables.params
    head, relation, tail = (e[k][:, None] for k in ("head", "relation", "tail"))
    left_out = ~GRAPH.own[e["client"]]
    ranks = [
        filtered_ranks(
            np.asarray(model.triples(params, everyone[None], relation, tail)),
            e["head"],
            left_out | GRAPH.known[e["relation"], :, e["tail"]],
        ),
        filtered_ranks(
            np.asarray(model.triples(params, head, relation, everyone[None])),
            e["tail"],
            left_out | GRAPH.known[e["relation"], e["head"]],
        ),
    ]
    np.testing.assert_allclose(got["mrr"][0], np.mean([1 / r for r in ranks], 0), rtol=1e-6)
    for k in (1, 3, 10):
        want = np.mean([r <= k for r in ranks], 0)
        np.testing.assert_array_equal(got[f"hits@{k}"][0], np.float32(want))
    assert max(r.max() for r in ranks) <= 9 - 0.5 + 1


def fed_e(task, learning_rate):
    return algorithms.lg_fed_avg(
        task.gradient,
        optax.adam(learning_rate),
        is_global=algorithms.layers("entities"),
        aggregator=mean_over_holders(),
        weighting=algorithms.equal,
    )


def test_entities_are_averaged_over_the_hospitals_that_have_them():
    task = tasks.link_prediction(models.dist_mult(4), GRAPH, num_negatives=4)
    places = placement.one_device(), placement.mesh(2, splits=2)
    runs = [
        simulate(
            fed_e(task, 0.05),
            DATASET,
            task=task,
            rounds=2,
            local_work=epochs(1, batch_size=4),
            placement=place,
            seed=3,
        )
        for place in places
    ]
    for one, other in zip(*(jax.tree.leaves(run.client_states) for run in runs), strict=True):
        # Five dependent steps; Adam divides small gradients by their size, rounding included.
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
    own, start = runs[0].client_states.params["relations"], task.init(3).params
    # Relations stay: each hospital has moved its own, and the server none.
    moved = (own != np.asarray(start["relations"])[None]).any(-1)
    assert moved.tolist() == [[True, False], [False, True]]
    server = runs[0].variables.params
    np.testing.assert_array_equal(server["relations"], start["relations"])
    np.testing.assert_allclose(
        runs[1].variables.params["entities"], server["entities"], rtol=1e-3, atol=1e-4
    )


def test_a_mean_over_holders_counts_who_has_the_row():
    aggregator = mean_over_holders()
    updates = [np.array([[3.0, 0], [0, 0], [2, 2]]), np.array([[0, 0.0], [0, 0], [5, -1]])]
    weights, key = [1.0, 2.0], jax.random.key(0)
    messages = [
        aggregator.encode({"e": jnp.asarray(u)}, jnp.float32(w), (), key)
        for u, w in zip(updates, weights, strict=True)
    ]
    total = jax.tree.map(lambda a, b: a + b, *messages)
    mean, _ = aggregator.decode(total, ())
    # Row 0 of the first alone, row 1 of nobody, row 2 weighted 1 to 2.
    assert np.asarray(mean["e"]).tolist() == [[3, 0], [0, 0], [4, 0]]


def test_hospitals_learn_the_circle_together():
    # Step of 2 from 6 to 8 was seen by South; that 8 is where it is on the circle, North knows too.
    task = tasks.link_prediction(models.rotat_e(8), GRAPH, num_negatives=8)
    run = simulate(
        fed_e(task, 0.05),
        DATASET,
        task=task,
        rounds=30,
        local_work=epochs(2, batch_size=12),
        evaluate_every=30,
        evaluate_on=("train",),
    )
    assert run.evaluations[-1].pooled["mrr"] > 0.9
    assert run.history["train_loss"][-1] < 0.5 * run.history["train_loss"][0]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"num_negatives": 0}, "num_negatives must be at least 1, got 0."),
        ({"temperature": -1.0}, "temperature must not be negative, got -1.0."),
        ({"negatives": np.ones((2, 3))}, "[2, 12] with an entity for every client, got [2, 3]."),
        ({"negatives": np.zeros((2, 12))}, "[2, 12] with an entity for every client, got"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError) as error:
        tasks.link_prediction(models.dist_mult(2), GRAPH, **options)
    assert words in str(error.value)

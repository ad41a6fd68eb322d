"""Link prediction: which entity completes a triple of a knowledge graph."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med.data import FederatedDataset
from fedjax_med.engine.contracts import Batch, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.graph_embeddings import GraphModel
from fedjax_med.tasks.inputs import init_key

METRICS = ("mrr", "hits@1", "hits@3", "hits@10")


class Graph(NamedTuple):
    """What link prediction has to know of a graph besides its triples.

    The masks take `relations * entities**2` bytes each: for graphs of thousands of entities.

    Attributes:
      known: bool `[relations, entities, entities]`, all triples of all splits: right answers that
        evaluation filters.
      trained: the same for training triples: what is no negative example. A client sees those of
        its own relations only, where relations are divided.
      own: bool `[clients, entities]`, entities in a triple of the client, in any split.
    """

    known: np.ndarray
    trained: np.ndarray
    own: np.ndarray


def graph_of(dataset: FederatedDataset) -> Graph:
    """The graph of a dataset such as `datasets.umls` gives."""
    shape = (len(dataset.feature_names), len(dataset.label_names), len(dataset.label_names))
    masks = {"known": np.zeros(shape, bool), "trained": np.zeros(shape, bool)}
    own = np.zeros((dataset.num_clients, shape[1]), bool)
    for split, arrays in dataset.splits().items():
        e = arrays.examples
        masks["known"][e["relation"], e["head"], e["tail"]] = True
        if split == "train":
            masks["trained"][e["relation"], e["head"], e["tail"]] = True
        for key in ("head", "tail"):
            own[e["client"], e[key]] = True
    return Graph(**masks, own=own)


def link_prediction(
    model: GraphModel,
    graph: Graph,
    *,
    num_negatives: int = 16,
    temperature: float = 1.0,
    negatives: np.ndarray | None = None,
) -> Task:
    """Logistic loss against negative examples that the model itself finds hard.

        loss = -(log sigmoid(score) + sum_i p[i] log sigmoid(-score'[i])) / 2
        p = softmax(temperature * score')

    `score'` are the triples with the head, and with the tail, replaced by `num_negatives` entities
    each, drawn from the client's own; those that are training triples count nothing. No gradient
    passes through `p`.

    Metrics: `mrr`, `hits@1`, `hits@3`, `hits@10`, filtered, the mean of both questions: who is the
    head, who the tail. Candidates are the client's own entities; ties take the middle rank.

    Args:
      model: of `models.graph_embeddings`.
      graph: from `graph_of`; examples are those of `datasets.triple_dataset`.
      num_negatives: per side and training triple.
      temperature: 0 weighs negative examples alike.
      negatives: bool `[clients, entities]`, from which negative examples are drawn, `graph.own` if
        None; ones for a model of collected triples.

    Raises:
      ValueError: if `num_negatives` is below 1, `temperature` negative, or `negatives` has another
        shape or leaves a client nothing.

    References:
      Sun et al., "RotatE", ICLR 2019, equations 4 to 6. https://arxiv.org/abs/1902.10197
    """
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives!r}.")
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, got {temperature!r}.")
    pool = graph.own if negatives is None else np.asarray(negatives, bool)
    if pool.shape != graph.own.shape or not pool.any(1).all():
        raise ValueError(
            f"negatives must be {list(graph.own.shape)} with an entity for every client, got "
            f"{list(pool.shape)}."
        )
    num_relations, num_entities, _ = graph.known.shape
    # The pool of a client comes first in its row, so a number below its size draws from it.
    order = np.argsort(~pool, axis=1, kind="stable").astype(np.int32)
    size = pool.sum(1).astype(np.int32)

    def init(seed: int) -> Variables:
        return Variables(model.init(init_key(seed), num_entities, num_relations))

    def loss(variables: Variables, batch: Batch):
        e, params = batch.examples, variables.params
        head, relation, tail, client = (
            e[name][:, None] for name in ("head", "relation", "tail", "client")
        )
        drawn = _uniform(batch, (2, num_negatives))
        number = (drawn * jnp.asarray(size)[e["client"]][:, None, None]).astype(jnp.int32)
        number = jnp.minimum(number, jnp.asarray(size)[e["client"]][:, None, None] - 1)
        entity = jnp.asarray(order)[client[:, :, None], number]  # [batch, 2, num_negatives]
        trained = jnp.asarray(graph.trained)
        score = jnp.concatenate(
            [
                model.triples(params, entity[:, 0], relation, tail),
                model.triples(params, head, relation, entity[:, 1]),
            ],
            axis=1,
        )
        wrong = ~jnp.concatenate(
            [trained[relation, entity[:, 0], tail], trained[relation, head, entity[:, 1]]], axis=1
        )
        own = model.triples(params, e["head"], e["relation"], e["tail"])
        # A finite floor: where all are training triples, infinity would be a softmax of nothing.
        logits = jnp.where(wrong, temperature * lax.stop_gradient(score), -1e9)
        share = jnp.where(wrong, jax.nn.softmax(logits, axis=1), 0)
        against = jnp.sum(share * jax.nn.log_sigmoid(-score), axis=1)
        return -(jax.nn.log_sigmoid(own) + against) / 2, variables.state

    def metrics(variables: Variables, batch: Batch):
        e, params = batch.examples, variables.params
        head, relation, tail = e["head"], e["relation"], e["tail"]
        everyone = jnp.arange(num_entities)[None]
        known, own = jnp.asarray(graph.known), jnp.asarray(graph.own)[e["client"]]
        ranks = jnp.stack(
            [
                _ranks(
                    model.triples(params, everyone, relation[:, None], tail[:, None]),
                    head,
                    own & ~known[relation, :, tail],
                ),
                _ranks(
                    model.triples(params, head[:, None], relation[:, None], everyone),
                    tail,
                    own & ~known[relation, head],
                ),
            ]
        )
        ones = jnp.ones_like(ranks[0])
        values = {"mrr": jnp.mean(1 / ranks, axis=0)}
        for k in (1, 3, 10):
            values[f"hits@{k}"] = jnp.mean((ranks <= k).astype(ranks.dtype), axis=0)
        return {name: (value, ones) for name, value in values.items()}

    return Task(init, loss, metrics, METRICS, (True,) * len(METRICS))


def _ranks(score: jax.Array, answer: jax.Array, against: jax.Array) -> jax.Array:
    """`evaluation.recommendation.filtered_ranks` on the device; `against` are the competitors."""
    own = jnp.take_along_axis(score, answer[:, None], axis=1)
    against = against & (jnp.arange(score.shape[1])[None] != answer[:, None])
    above = jnp.sum(against & ~(score <= own), axis=1)
    return 1 + above + jnp.sum(against & (score == own), axis=1).astype(score.dtype) / 2


def _uniform(batch: Batch, shape: tuple[int, ...]) -> jax.Array:
    """Draws `[batch, *shape]` in [0, 1) that do not depend on how the minibatch is split."""
    size = batch.mask.shape[0]
    draws = jax.random.uniform(batch.key, (size * batch.num_splits, *shape))
    if batch.split_axis is None:
        return draws
    return lax.dynamic_slice_in_dim(draws, lax.axis_index(batch.split_axis) * size, size)

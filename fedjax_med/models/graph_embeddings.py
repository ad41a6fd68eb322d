"""Embeddings of the entities and relations of a knowledge graph, and what they make of a triple.

Parameters are `entities` `[entities, size]` and `relations` `[relations, relation size]`, so that a
federated algorithm can share the one and keep the other (`layers("entities")`). A score is the
higher, the more plausible a triple is.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedjax_med.engine.contracts import Array, Batch, PyTree, Variables
from fedjax_med.models.adapters import Model


class GraphModel(NamedTuple):
    """A score of triples, from embeddings.

    Attributes:
      init: `(key, number of entities, number of relations) -> params`, float32.
      score: `(head [..., size], relation [..., relation size], tail [..., size]) -> [...]`; leading
        axes are equal or 1.
    """

    init: Callable[[jax.Array, int, int], PyTree]
    score: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    def triples(self, params: PyTree, head: Array, relation: Array, tail: Array) -> jax.Array:
        """Scores of triples of numbers, `[...]` each, leading axes equal or 1."""
        entities, relations = params["entities"], params["relations"]
        return self.score(entities[head], relations[relation], entities[tail])


def trans_e(size: int = 32, *, margin: float = 6.0) -> GraphModel:
    """TransE: a relation is a translation; `margin - |head + relation - tail|_1`.

    Args:
      size: of entities and relations.
      margin: the score of a perfect triple; it does not change the order.

    Raises:
      ValueError: if `size` is below 1 or `margin` not positive.

    References:
      Bordes et al., NeurIPS 2013, equation 1.
      https://papers.nips.cc/paper/5071-translating-embeddings-for-modeling-multi-relational-data
    """
    _check(size, margin)

    def score(head: jax.Array, relation: jax.Array, tail: jax.Array) -> jax.Array:
        return margin - jnp.sum(jnp.abs(head + relation - tail), axis=-1)

    return GraphModel(_uniform(size, size, (margin + 2) / size), score)


def dist_mult(size: int = 32) -> GraphModel:
    """DistMult: `sum_i head[i] relation[i] tail[i]`; no relation has a direction.

    Args:
      size: of entities and relations.

    Raises:
      ValueError: if `size` is below 1.

    References:
      Yang et al., ICLR 2015, section 3. https://arxiv.org/abs/1412.6575
    """
    _check(size)

    def score(head: jax.Array, relation: jax.Array, tail: jax.Array) -> jax.Array:
        return jnp.sum(head * relation * tail, axis=-1)

    return GraphModel(_uniform(size, size, math.sqrt(3 / size) * 2), score)


def compl_ex(size: int = 16) -> GraphModel:
    """ComplEx: `Re(sum_i head[i] relation[i] conj(tail[i]))`, real parts stored before imaginary ones.

    Args:
      size: complex numbers per entity and relation; arrays are twice as wide.

    Raises:
      ValueError: if `size` is below 1.

    References:
      Trouillon et al., ICML 2016, equation 11. https://arxiv.org/abs/1606.06357
    """
    _check(size)

    def score(head: jax.Array, relation: jax.Array, tail: jax.Array) -> jax.Array:
        (h, hi), (r, ri), (t, ti) = (jnp.split(v, 2, axis=-1) for v in (head, relation, tail))
        return jnp.sum((h * r - hi * ri) * t + (h * ri + hi * r) * ti, axis=-1)

    return GraphModel(_uniform(2 * size, 2 * size, math.sqrt(3 / size)), score)


def rotat_e(size: int = 16, *, margin: float = 6.0) -> GraphModel:
    """RotatE: a relation turns each complex number; `margin - sum_i |head[i] e^(i relation[i]) - tail[i]|`.

    Entities are stored as real parts and then imaginary ones, relations as angles [radians].

    Args:
      size: complex numbers per entity, and angles per relation.
      margin: the score of a perfect triple; it does not change the order.

    Raises:
      ValueError: if `size` is below 1 or `margin` not positive.

    References:
      Sun et al., ICLR 2019, equation 3. https://arxiv.org/abs/1902.10197
    """
    _check(size, margin)

    def score(head: jax.Array, relation: jax.Array, tail: jax.Array) -> jax.Array:
        (h, hi), (t, ti) = jnp.split(head, 2, axis=-1), jnp.split(tail, 2, axis=-1)
        c, s = jnp.cos(relation), jnp.sin(relation)
        a, b = h * c - hi * s - t, h * s + hi * c - ti
        # The root of 0 has no gradient; a number far below rounding of any other distance has.
        return margin - jnp.sum(jnp.sqrt(a**2 + b**2 + 1e-12), axis=-1)

    bound = (margin + 2) / size
    return GraphModel(_uniform(2 * size, size, bound, math.pi), score)


GRAPH_MODELS: dict[str, Callable[..., GraphModel]] = {
    "TransE": trans_e,
    "DistMult": dist_mult,
    "ComplEx": compl_ex,
    "RotatE": rotat_e,
}


def as_model(model: GraphModel, num_entities: int, num_relations: int) -> Model:
    """The score of every triple of a minibatch `[batch]`, from `head`, `relation` and `tail`."""

    def init(key: jax.Array, x: PyTree) -> Variables:
        del x
        return Variables(model.init(key, num_entities, num_relations))

    def apply(variables: Variables, batch: Batch, train: bool):
        del train
        e = batch.examples
        score = model.triples(variables.params, e["head"], e["relation"], e["tail"])
        return score, variables.state

    return Model(init, apply)


def _all_zero(key: jax.Array, num_entities: int, num_relations: int) -> PyTree:
    del key
    return {"entities": jnp.zeros(num_entities), "relations": jnp.zeros(num_relations)}


# To which all triples are equally plausible: what ranks are without any knowledge.
INDIFFERENT = GraphModel(_all_zero, lambda head, relation, tail: head + relation + tail)


def _uniform(
    size: int, relation_size: int, bound: float, relation_bound: float | None = None
) -> Callable[[jax.Array, int, int], PyTree]:
    """Uniform up to bounds that keep the first scores near 0, where the loss has its gradient."""

    def init(key: jax.Array, num_entities: int, num_relations: int) -> PyTree:
        first, second = jax.random.split(key)
        r = bound if relation_bound is None else relation_bound
        shapes = (num_entities, size), (num_relations, relation_size)
        return {
            "entities": jax.random.uniform(first, shapes[0], jnp.float32, -bound, bound),
            "relations": jax.random.uniform(second, shapes[1], jnp.float32, -r, r),
        }

    return init


def _check(size: int, margin: float = 1.0) -> None:
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size!r}.")
    if not margin > 0:
        raise ValueError(f"margin must be positive, got {margin!r}.")

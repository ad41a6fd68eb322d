"""bfloat16 inside, float32 outside."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import algorithms
from fedjax_med.engine import Batch, Variables, gradient, mixed_precision, simulate
from tests.engine.toy import (
    LOCAL_WORK,
    assert_close,
    initial_variables,
    make_dataset,
    make_task,
    toy_loss,
)


def train(loss, rounds=5):
    return simulate(
        algorithms.fed_avg(gradient(loss), optax.sgd(0.1, momentum=0.9), server_momentum=0.5),
        make_dataset(),
        task=make_task(),
        rounds=rounds,
        local_work=LOCAL_WORK["epochs"],
        lanes=2,
    )


def test_parameters_stay_in_float32_and_follow_the_exact_run():
    seen = set()

    def watched(variables, batch):
        seen.update(x.dtype for x in jax.tree.leaves(variables))
        seen.add(batch.examples["x"].dtype)
        assert batch.examples["y"].dtype == jnp.int32  # labels are no features
        return toy_loss(variables, batch)

    exact, narrow = train(toy_loss), train(mixed_precision(watched))
    assert seen == {jnp.dtype(jnp.bfloat16)}
    assert {x.dtype for x in jax.tree.leaves(narrow.state)} == {np.dtype(np.float32)}
    moved = max(
        np.abs(a - b).max()
        for a, b in zip(exact.variables.params, initial_variables().params, strict=True)
    )
    off = max(
        np.abs(a - b).max()
        for a, b in zip(exact.variables.params, narrow.variables.params, strict=True)
    )
    # bfloat16 has 8 bits, a relative rounding error of 2^-9 = 0.2 % of each product; gradients
    # are sums of those, so a few percent of the way that was gone may be off but not more,
    # and not nothing, or it was never computed in bfloat16.
    assert 1e-5 < off < 0.05 * moved


def test_another_type_can_be_asked_for():
    wide = train(mixed_precision(toy_loss, jnp.float32))
    assert_close(wide.state, train(toy_loss).state, 1e-6)


@pytest.mark.parametrize("name", ["x", "tuple"])
def test_examples_that_are_no_dict_are_cast_as_a_whole(name):
    def loss(variables, batch):
        x = batch.examples["x"] if name == "x" else batch.examples[0]
        assert x.dtype == jnp.bfloat16 and variables.params.dtype == jnp.bfloat16
        return variables.params * x, variables.state

    x = jnp.arange(4.0)
    examples = {"x": x} if name == "x" else (x,)
    batch = Batch(examples, jnp.ones(4, bool), jnp.float32(4), jax.random.key(0))
    result = gradient(mixed_precision(loss))(Variables(jnp.float32(2.0)), batch)
    assert result.grads.dtype == result.loss.dtype == jnp.float32
    np.testing.assert_allclose(result.grads, 1.5, rtol=1e-2)

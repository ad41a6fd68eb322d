"""Sums of ciphertexts against the plain sum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms
from fedjax_med.engine import cohorts, gradient, simulate
from fedjax_med.secure.homomorphic import (
    SLOTS,
    Encrypted,
    homomorphic_mean,
    new_context,
    public_context,
)
from tests.engine.toy import (
    LOCAL_WORK,
    compiled_gradient,
    make_dataset,
    make_task,
    run_sequentially,
    toy_loss,
)

pytest.importorskip("tenseal", reason="the extra `homomorphic` is not installed")


@pytest.fixture(scope="module")
def context():
    return new_context()


def test_a_server_without_the_secret_key_adds_what_it_cannot_read(context):
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 1, (3, SLOTS + 5))  # more than one ciphertext
    server = public_context(context)
    assert not server.is_private()
    sent = [Encrypted.of(v, context).serialize() for v in vectors]
    total = sum(
        (Encrypted.load(s, SLOTS + 5, server) for s in sent[1:]),
        start=Encrypted.load(sent[0], SLOTS + 5, server),
    )
    with pytest.raises(ValueError, match="secret_key"):
        total.decrypt()
    got = total.decrypt(context.secret_key())
    # Encoding and encryption at a scale of 2**40 leave errors near 1e-8 for each client.
    np.testing.assert_allclose(got, vectors.sum(axis=0), rtol=0, atol=3e-7)
    # Encryption is randomised: the same vector looks different each time.
    assert Encrypted.of(vectors[0], context).serialize()[0] != sent[0][0]
    with pytest.raises(ValueError, match="5 numbers was added to one of 6"):
        Encrypted.of(np.zeros(5), context) + Encrypted.of(np.zeros(6), context)


def test_it_is_the_weighted_mean_in_a_round(context):
    dataset = make_dataset((5, 1, 12))

    def train(aggregator):
        algorithm = algorithms.fed_avg(
            compiled_gradient("float32"), optax.sgd(0.1), aggregator=aggregator
        )
        work = LOCAL_WORK["stored_order"]
        return run_sequentially(
            algorithm, dataset, work, num_rounds=2, cohort=cohorts.everyone()
        ).state.variables

    got, want = train(homomorphic_mean(context)), train(aggregation.weighted_mean())
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        # Errors of ciphertexts, and of float32 sums in the plain mean.
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_nobody_with_weight_moves_nothing(context):
    mean = homomorphic_mean(context)
    update = {"a": jnp.zeros(3)}
    state = mean.init(update)
    message = mean.encode(update, jnp.float32(0), state, jax.random.key(0))
    got, _ = mean.decode(message + message, state)
    np.testing.assert_allclose(got["a"], 0, atol=1e-6)


def test_compiled_rounds_refuse_it(context):
    algorithm = algorithms.fed_avg(
        gradient(toy_loss), optax.sgd(0.1), aggregator=homomorphic_mean(context)
    )
    with pytest.raises(TypeError, match="cannot run inside a compiled round"):
        simulate(
            algorithm, make_dataset(), task=make_task(), rounds=1, local_work=LOCAL_WORK["epochs"]
        )

"""A hospital's mix of outcomes from its update: exactly, by regression, and not at all under noise."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med.attacks.property_inference import infer_share, share_from_bias_gradient
from fedjax_med.attacks.updates import gradient_of
from fedjax_med.data import DataError
from tests.attacks.toy import hospitals, protection, task_of, training


@pytest.fixture(scope="module")
def dataset():
    return hospitals(3, size=60)


def test_first_gradient_of_a_linear_model_is_the_share(dataset):
    task = task_of(dataset)
    for number in range(3):
        examples = dataset.train.client(number)
        gradient = gradient_of(task, task.init(0), {k: jnp.asarray(v) for k, v in examples.items()})
        found = share_from_bias_gradient(gradient["bias"], 0.5)
        # A mean of 60 float32 numbers of about a half.
        assert found == pytest.approx(examples["y"].mean(), abs=1e-6)


def infer(dataset, noise_multiplier):
    # One hospital alone: what its server sees is its clipped update with all of the noise.
    train = training().protected(protection(clip=0.5, noise_multiplier=noise_multiplier))
    return infer_share(train, task_of(dataset), dataset, num_hospitals=120, num_patients=40)


def test_updates_tell_the_share_and_noise_hides_it(dataset):
    bare, noised = infer(dataset, 0.0), infer(dataset, 3.0)
    assert bare.true.shape == (60,)
    np.testing.assert_array_equal(bare.true, noised.true)
    # A uniform share is 0.2 from its mean on average.
    assert bare.error_of_guessing == pytest.approx(0.2, abs=0.05)
    assert bare.error.high < 0.25 * bare.error_of_guessing
    assert noised.error.value > 0.8 * noised.error_of_guessing


def test_outcomes_that_are_not_both_zero_and_one_are_refused(dataset):
    only = dataset.map_examples(lambda e: {**e, "y": np.zeros_like(e["y"])})
    with pytest.raises(DataError, match="outcomes 0 and 1"):
        infer_share(training().unprotected(), task_of(only), only)

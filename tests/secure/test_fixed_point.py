"""Fixed-point sums: exact, within their error, and never past the modulus."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.secure import fixed_point, fixed_point_mean
from tests.draws import draws


@draws(quick=200, thorough=2000)
@given(
    num_clients=st.integers(1, 10_000),
    max_weight=st.integers(1, 1000),
    bound=st.floats(1e-4, 100),
)
def test_the_bound_is_tight(num_clients, max_weight, bound):
    try:
        numbers = fixed_point(num_clients, bound, max_weight=max_weight)
    except ValueError:
        assert num_clients * max_weight * bound >= 2**31 - 1
        return
    terms = num_clients * max_weight
    assert numbers.largest > 0 or numbers.fraction_bits < 0
    assert terms * round(bound * 2.0**numbers.fraction_bits) <= 2**31 - 1
    finer = numbers.fraction_bits + 1
    assert terms * round(bound * 2.0**finer) > 2**31 - 1
    with pytest.raises(ValueError, match="would wrap the modulus"):
        fixed_point(num_clients, bound, max_weight=max_weight, fraction_bits=finer)


def test_the_largest_sum_fits_and_one_more_is_refused():
    # 2**31 - 1 is a prime, so with one client of weight 1 and no fraction it is met exactly.
    assert fixed_point(1, 2.0**31 - 1 - 2**-9, fraction_bits=0).largest == 2**31 - 1
    with pytest.raises(ValueError, match="wraps the modulus; allowed is less than 2147483647"):
        fixed_point(1, 2.0**31)
    with pytest.raises(ValueError, match="wraps the modulus"):
        fixed_point(2, 1.0, max_weight=2**30)
    assert fixed_point(2**10 - 1, 1.0, fraction_bits=21).largest == 2**21
    with pytest.raises(ValueError, match="fraction_bits must be at most 20 for 1024 clients"):
        fixed_point(2**10, 1.0, fraction_bits=21)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_of_largest_numbers_does_not_wrap(sign):
    """And with a point one place further, which is refused, it does."""
    n, w = 10, 300
    numbers = fixed_point(n, 0.1, max_weight=w)
    x = jnp.full(3, sign * 5.0)  # clipped
    total = jnp.uint32(n * w) * numbers.encode(x)
    np.testing.assert_allclose(
        numbers.decode(total),
        sign * 0.1 * n * w,
        rtol=1e-6,  # of rounding 0.1 to fixed point
    )
    finer = numbers._replace(fraction_bits=numbers.fraction_bits + 1)
    wrapped = finer.decode(jnp.uint32(n * w) * finer.encode(x))
    assert np.all(np.sign(wrapped) == -sign)


@draws(quick=50, thorough=500)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_weighted_mean_within_half_a_unit(seed):
    rng = np.random.default_rng(seed)
    n, w_max = 7, 90
    mean = fixed_point_mean(n, bound=0.5, max_weight=w_max)
    numbers = fixed_point(n, 0.5, max_weight=w_max)
    update = rng.uniform(-0.5, 0.5, (n, 11)).astype(np.float32)
    weight = rng.integers(0, w_max + 1, n).astype(np.float32)
    got, state = mean_of(mean, update, weight)
    want = weight.astype(np.float64) @ update / max(weight.sum(), 1)
    # One rounding to float32 besides the fixed point.
    bound = numbers.error_bound + np.abs(want) * np.finfo(np.float32).eps
    assert np.all(np.abs(got["a"] - want) <= bound * (weight.sum() > 0))
    assert int(state.num_clipped) == 0


def mean_of(mean, update, weight):
    @jax.jit
    def whole(update, weight):
        tree = {"a": update}
        state = mean.init(jax.tree.map(lambda x: x[0], tree))
        encode = jax.vmap(lambda u, w: mean.encode(u, w, state, jax.random.key(0)))
        total = jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), encode(tree, weight))
        return mean.decode(total, state)

    return whole(update, weight)


def test_whoever_was_clipped_is_counted():
    mean = fixed_point_mean(4, bound=1.0, max_weight=10)
    update = np.array([[1.0, -1.0], [1.5, 0.0], [0.0, 0.0], [0.5, 0.5]], np.float32)
    weight = np.array([10.0, 1.0, 2.5, 11.0], np.float32)
    got, state = mean_of(mean, update, weight)
    assert int(state.num_clipped) == 3  # by its update, by its fraction of an example, by weight
    np.testing.assert_allclose(got["a"], [(10 + 1 + 5) / 23, (-10 + 5) / 23], rtol=1e-6)


def test_bfloat16_stays_and_integers_are_refused():
    mean = fixed_point_mean(2, bound=1.0)
    got, _ = mean_of(mean, jnp.full((2, 3), 0.25, jnp.bfloat16), np.ones(2, np.float32))
    assert got["a"].dtype == jnp.bfloat16 and np.all(got["a"] == 0.25)
    with pytest.raises(ValueError, match=r"update\['n'\] is int32"):
        mean.init({"n": jnp.zeros(2, jnp.int32)})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 1.0), "num_clients must be positive and finite, got 0"),
        ((2, float("nan")), "bound must be positive and finite, got nan"),
        ((2, float("inf")), "bound must be positive and finite, got inf"),
    ],
)
def test_arguments_that_are_not_allowed(arguments, message):
    with pytest.raises(ValueError, match=message):
        fixed_point(*arguments)

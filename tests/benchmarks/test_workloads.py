"""The workloads are the agreed arrays, and the engine's rounds on them are FedAvg."""

import hashlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import workloads
from benchmarks.workloads import WORKLOADS
from fedjax_med import engine as fm
from tests.draws import THOROUGH

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "workloads.py"

# SHA-256 of sizes, inputs and labels; of the cohorts of five rounds; of the initial parameters.
DIGESTS = {
    "cifar-cnn": (
        "57245360fbfb1a558d497e4922531ab110c7bf70099787f984c83a2956759df8",
        "c8751d2ae4c2c02d60f113037f6fb65fdc5b476335094eb7094a93cfcc82828f",
        "7666427a5da985190cbadcfd0cce75e6627406d805c3f4a842bd8b91fea73f75",
    ),
    "femnist-cnn": (
        "c8481f2adfa2de46b4d77bef60826caa79749d22c18b0be99b567a3e0a3eb00f",
        "cec167896a89f620c8a7d513f5741c1eceb3859fea93cbe246f6c79bb174cde0",
        "cf525e46bfff1656fdd606a889b83e185dad05b996173eea0a7a2566435bc893",
    ),
    "tabular-logreg": (
        "5ea78fb41693ecba6c6f1a4806199a9c84123430bee8b4401736f13d09c1a2f2",
        "b28d70ea242ef9f877d765213a715de00149a3850c901cad3d9cc1fbf49745ee",
        "7f0acfe7bdfc8c19afb99d4574d3132c237e7b1a54a0b638849edb3f5dae0824",
    ),
    "ehr-mlp": (
        "dd0c56156930871b9de4a9346a05b20cc0db0b433fd6616ea187795ed6312073",
        "aff65de01c0ba48dc7422e45d5b1b0f83dc5f4857aed9440e560dca74b5ff336",
        "0684b3bc5c1797393495fdc0d8122c1146453e6736ccb10ac13d95350d3521c0",
    ),
}
names = pytest.mark.parametrize("name", WORKLOADS)
tables = pytest.mark.parametrize("name", ["tabular-logreg", "ehr-mlp"])


def digest(*arrays):
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(str((array.dtype.str, array.shape)).encode())
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


@names
def test_arrays_are_the_agreed_ones(name):
    workload = WORKLOADS[name]
    examples, cohorts, params = DIGESTS[name]
    sizes = workloads.client_sizes(workload)
    assert digest(*(workloads.make_cohort(workload, r) for r in range(5))) == cohorts
    assert digest(*workloads.initial_params(workload).values()) == params
    assert digest(sizes, *workloads.make_examples(workload)) == examples


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs the definition beside the repository")
@names
def test_definition_makes_the_same_arrays(name):
    specification = importlib.util.spec_from_file_location("workload_definition", REFERENCE)
    assert specification and specification.loader
    definition = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(definition)
    key = f"W{WORKLOADS[name].number}"
    params = definition.initial_params(key)
    assert list(params) == list(workloads.param_shapes(WORKLOADS[name]))
    examples, cohorts, initial = DIGESTS[name]
    assert digest(*params.values()) == initial
    assert digest(*(definition.cohort(key, r) for r in range(5))) == cohorts
    assert digest(definition.user_sizes(key), *definition.generate(key)) == examples


# -- plain NumPy, in float64 -----------------------------------------------------------------


def network(params, x, num_layers):
    """Logits `[examples]` and what every dense layer was given."""
    inputs = []
    for layer in range(1, num_layers + 1):
        inputs.append(x)
        x = x @ params[f"dense{layer}_w"] + params[f"dense{layer}_b"]
        if layer < num_layers:
            x = np.maximum(x, 0)
    return x[:, 0], inputs


def network_gradient(params, x, y, num_layers):
    """Gradient of the mean logistic loss."""
    logits, inputs = network(params, x, num_layers)
    flow = ((1 / (1 + np.exp(-logits)) - y) / len(y))[:, None]
    gradient = {}
    for layer in range(num_layers, 0, -1):
        gradient[f"dense{layer}_w"] = inputs[layer - 1].T @ flow
        gradient[f"dense{layer}_b"] = flow.sum(0)
        flow = (flow @ params[f"dense{layer}_w"].T) * (inputs[layer - 1] > 0)
    return gradient


def sgd():
    return lambda gradient: -0.1 * gradient


def adam(rate=1e-3, b1=0.9, b2=0.999, eps=1e-8):
    first = second = step = 0

    def update(gradient):
        nonlocal first, second, step
        step += 1
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        return -rate * (first / (1 - b1**step)) / (np.sqrt(second / (1 - b2**step)) + eps)

    return update


def numpy_round(loaded, params, optimizer, clients):
    """The model after one round of FedAvg with these clients."""
    train, workload = loaded.dataset.train, loaded.workload
    num_layers = len(params) // 2
    mean, weight = {name: 0.0 for name in params}, 0
    for client in clients:
        x, y = (train.client(client)[name] for name in "xy")
        local, update = dict(params), {name: optimizer() for name in params}
        for start in range(0, len(y), workload.batch_size):
            rows = slice(start, start + workload.batch_size)
            gradient = network_gradient(local, np.float64(x[rows]), y[rows], num_layers)
            local = {name: value + update[name](gradient[name]) for name, value in local.items()}
        mean = {name: mean[name] + len(y) * local[name] for name in params}
        weight += len(y)
    return {name: value / weight for name, value in mean.items()}


def numpy_final_loss(loaded, params):
    sizes, x, y = loaded.dataset.train.sizes, *loaded.dataset.train.examples.values()
    count = sizes[: loaded.workload.num_judged].sum()
    logits, _ = network(params, np.float64(x[:count]), len(params) // 2)
    return np.mean(np.log1p(np.exp(-np.where(y[:count] == 1, logits, -logits))))


def one_round(loaded, dtype):
    """The engine's model after one round."""
    variables = jax.tree.map(lambda x: np.asarray(x, dtype), loaded.variables)
    with jax.enable_x64(dtype == np.float64):
        run = fm.simulate(
            loaded.algorithm,
            loaded.dataset,
            task=loaded.task,
            rounds=1,
            local_work=loaded.local_work,
            cohort=loaded.sampler,
            variables=variables,
            rounds_per_call=1,
        )
    return run.variables.params


@tables
def test_a_round_equals_plain_numpy(name):
    clients = workloads.make_cohort(WORKLOADS[name], 0).tolist()
    if name == "ehr-mlp" and not THOROUGH:
        clients = clients[:2]  # of four large ones
    loaded = workloads.load(name, rounds=1, cohorts=[clients])
    initial = {n: np.float64(value) for n, value in loaded.variables.params.items()}
    want = numpy_round(loaded, initial, adam if name == "ehr-mlp" else sgd, clients)
    assert all(np.abs(want[n] - initial[n]).max() > 1e-3 for n in want)  # it did learn
    got = one_round(loaded, np.float32)
    wide = one_round(loaded, np.float64)
    far = []
    for n, value in want.items():
        assert got[n].dtype == np.float32 and wide[n].dtype == np.float64
        np.testing.assert_allclose(wide[n], value, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(got[n], value, rtol=0, atol=1e-3)
        far.append((np.abs(got[n] - value) > 1e-5 + 1e-5 * np.abs(value)).ravel())
    # Adam divides every gradient by its own size, so where rounding turns the sign of one that
    # is almost 0, the parameter makes a step of up to 1e-3 the other way. One in a hundred is
    # off by more than 1e-5; in float64 above the same program is equal everywhere.
    assert np.concatenate(far).mean() <= (0.02 if name == "ehr-mlp" else 0)
    loss = workloads.final_loss(loaded, jax.tree.map(jnp.asarray, got))
    np.testing.assert_allclose(loss, numpy_final_loss(loaded, want), rtol=1e-5)


def test_cnn_equals_plain_numpy():
    """The forward pass of the CNN, its patches cut out one by one."""
    workload = WORKLOADS["femnist-cnn"]
    params = {n: np.float64(value) for n, value in workloads.initial_params(workload).items()}
    x = np.random.default_rng(0).standard_normal((3, *workload.input_shape), np.float32)

    def convolve(x, kernel, bias):
        out = np.zeros((len(x), x.shape[1] - 2, x.shape[2] - 2, len(bias)))
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[:, i, j] = np.tensordot(x[:, i : i + 3, j : j + 3], kernel, 3) + bias
        return np.maximum(out, 0)

    h = convolve(convolve(x, params["conv1_w"], params["conv1_b"]), *list(params.values())[2:4])
    h = np.stack([h[:, a::2, b::2] for a in (0, 1) for b in (0, 1)]).max(0).reshape(len(x), -1)
    h = np.maximum(h @ params["dense1_w"] + params["dense1_b"], 0)
    want = h @ params["dense2_w"] + params["dense2_b"]
    narrow = jax.tree.map(jnp.asarray, workloads.initial_params(workload))
    got = workloads.forward(workload, narrow, jnp.asarray(x))
    # 9216 terms at most in a sum, and logits of order 1.
    np.testing.assert_allclose(got, want, atol=1e-4)
    assert np.abs(want).max() > 0.1


def test_dropout_is_scaled_and_off_when_not_training():
    workload = WORKLOADS["cifar-cnn"]
    model = workloads._model(workload, dropout=True)
    params = workloads.initial_params(workload)
    # The last layer picks out its first input, so the outputs are one unit before and after.
    params["dense2_w"][:] = 0
    params["dense2_w"][0, 0] = 1
    params["dense1_b"][:] = 1  # zero images: every unit before the last layer is 1
    params = jax.tree.map(jnp.asarray, params)
    x = jnp.zeros((50, *workload.input_shape))
    batch = fm.Batch({"x": x}, jnp.ones(50, bool), jnp.float32(50), jax.random.key(0))
    trained, _ = model.apply(fm.Variables(params), batch, True)
    judged, _ = model.apply(fm.Variables(params), batch, False)
    np.testing.assert_array_equal(judged[:, 0], 1)
    assert set(np.unique(trained[:, 0])) == {0, 2}  # 1 / (1 - 0.5)
    # Five standard deviations of 50 fair coins.
    assert abs(np.mean(trained[:, 0] > 0) - 0.5) < 5 * 0.5 / np.sqrt(50)

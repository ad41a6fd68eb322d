"""A mesh over two processes of one machine trains the model that one device trains."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
import jax
rank, port, output = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
import numpy as np
import optax
import fedjax_med as fm

hospitals = fm.datasets.load("breast-cancer")
task = fm.tasks.binary_classification(fm.models.linear(), hospitals.train.examples)


def train(placement, aggregator):
    return fm.simulate(
        fm.algorithms.fed_avg(
            task.gradient,
            optax.sgd(0.05, momentum=0.9),
            aggregator=getattr(fm.aggregation, aggregator)(),
        ),
        hospitals,
        task=task,
        rounds=6,
        local_work=fm.epochs(1, batch_size=32),
        placement=placement,
        evaluate_every=3,
    )


results = {}
for aggregator in ("weighted_mean", "coordinate_median"):
    runs = {"spread": train(fm.placement.mesh(4), aggregator)}
    if rank == 0:
        runs["alone"] = train(fm.placement.one_device(), aggregator)
    for name, run in runs.items():
        results[f"{aggregator} {name}"] = run.variables.params["kernel"]
        results[f"{aggregator} {name} accuracy"] = run.evaluations[-1].per_client["accuracy"]
if rank == 0:
    np.savez(output, **results)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two processes trained together and the first one alone."""
    output = tmp_path_factory.mktemp("two_processes") / "result.npz"
    arguments = (str(free_port()), str(output))
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{REPO / 'kernels'}"}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    texts = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(texts)[-3000:]
    with np.load(output) as file:
        return dict(file)


@pytest.mark.parametrize("aggregator", ["weighted_mean", "coordinate_median"])
def test_two_processes_train_what_one_device_trains(results, aggregator):
    spread, alone = (results[f"{aggregator} {name}"] for name in ("spread", "alone"))
    # Only the order of float32 additions differs.
    np.testing.assert_allclose(spread, alone, rtol=1e-5, atol=1e-6)
    accuracies = [results[f"{aggregator} {name} accuracy"] for name in ("spread", "alone")]
    np.testing.assert_array_equal(*accuracies)


def test_the_two_aggregators_train_different_models(results):
    mean, median = results["weighted_mean spread"], results["coordinate_median spread"]
    assert np.abs(mean - median).max() > 1e-3

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
rank, port, aggregator, output = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
import numpy as np
import optax
import fedjax_med as fm

hospitals = fm.datasets.load("breast-cancer")
task = fm.tasks.binary_classification(fm.models.linear(), hospitals.train.examples)
algorithm = fm.algorithms.fed_avg(
    task.gradient,
    optax.sgd(0.05, momentum=0.9),
    aggregator=getattr(fm.aggregation, aggregator)(),
)


def train(placement):
    return fm.simulate(
        algorithm,
        hospitals,
        task=task,
        rounds=6,
        local_work=fm.epochs(1, batch_size=32),
        placement=placement,
        evaluate_every=3,
    )


spread = train(fm.placement.mesh(4))
if rank == 0:
    alone = train(fm.placement.one_device())
    np.savez(
        output,
        spread=spread.variables.params["kernel"],
        alone=alone.variables.params["kernel"],
        spread_accuracy=spread.evaluations[-1].per_client["accuracy"],
        alone_accuracy=alone.evaluations[-1].per_client["accuracy"],
    )
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("aggregator", ["weighted_mean", "coordinate_median"])
def test_two_processes_train_what_one_device_trains(tmp_path, aggregator):
    output = tmp_path / "result.npz"
    arguments = (str(free_port()), aggregator, str(output))
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
    with np.load(output) as result:
        # Only the order of float32 additions differs.
        np.testing.assert_allclose(result["spread"], result["alone"], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(result["spread_accuracy"], result["alone_accuracy"])

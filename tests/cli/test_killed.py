"""A run that is killed with SIGKILL and resumed is the run that was never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedjax_med.engine import checkpoint

REPO = Path(__file__).resolve().parents[2]
ROUNDS = 40
# A checkpoint every second round: most of the run is the writing of checkpoints.
RUN = ("run", "breast-cancer", "--rounds", str(ROUNDS), "--checkpoint-every", "2")
RUN += ("--evaluate-every", "3", "--cohort", "3", "--no-baselines", "--quiet")


def start(folder, *more):
    environment = {**os.environ, "PYTHONPATH": str(REPO), "JAX_PLATFORMS": "cpu"}
    script = "import sys; from fedjax_med.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, *RUN, "--output", str(folder), *more]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines_written(folder):
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def kill_at(process, folder, lines, delay):
    """Kills a run `delay` seconds after its metrics have `lines` lines; False if it ended."""
    while lines_written(folder) < lines:
        if process.poll() is not None:
            return False
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = start(folder)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return folder


def check_kills(folder, undisturbed, moments):
    kills = 0
    for lines, delay in moments:
        resume = ("--resume",) if (folder / "config.json").exists() else ()
        kills += kill_at(start(folder, *resume), folder, lines, delay)
    resume = ("--resume",) if (folder / "config.json").exists() else ()
    process = start(folder, *resume)
    _, errors = process.communicate()
    assert process.returncode == 0, errors

    # The last moments may find the run at its end, but most must have cut it short.
    assert kills >= 0.75 * len(moments)
    metrics = [(f / "metrics.jsonl").read_text() for f in (folder, undisturbed)]
    assert metrics[0] == metrics[1]
    got, want = (checkpoint.load(f / "checkpoints") for f in (folder, undisturbed))
    assert got.round == want.round == ROUNDS
    assert got.arrays.keys() == want.arrays.keys()
    for name, array in want.arrays.items():
        assert got.arrays[name].tobytes() == array.tobytes(), name
    final = [json.loads((f / "result.json").read_text())["final"] for f in (folder, undisturbed)]
    assert final[0] == final[1]


def random_moments(count, num_lines):
    """Moments spread over the lines of a run, the first one before there are any."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0, num_lines, count, endpoint=False)
    lines = np.sort(rng.uniform(edges, edges + num_lines / count)).astype(int)
    # Up to a tenth of a second: a checkpoint takes some hundredths.
    delays = rng.uniform(0, 0.1, count)
    delays[0] = rng.uniform(0, 2)
    return list(zip([0, *lines[1:].tolist()], delays, strict=True))


def test_killed_twice(tmp_path, undisturbed):
    moments = random_moments(2, lines_written(undisturbed))
    check_kills(tmp_path / "run", undisturbed, moments)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path, undisturbed):
    moments = random_moments(20, lines_written(undisturbed))
    check_kills(tmp_path / "run", undisturbed, moments)

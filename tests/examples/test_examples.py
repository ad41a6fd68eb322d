"""Every example runs as a user would run it, and says what it promises."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

PROMISES = {
    "digits.py": r"(round \d0: test accuracy 0\.9\d\d\n){3}$",
    "line_through_points.py": r"y = 3\.000 x \+ 2\.000\n$",
    "linear_regression.py": (
        r"true slope .*\nlearned slope \[ (1\.9[89]|2\.0?[01]?) +-(0\.99|1\.0?[01]?) +(0\.49|0\.5[01]?)\]"
        r" intercept (3\.9[89]|4\.0[01])\n$"
    ),
    "patient_age.py": r"off by [89]\.\d years on average; .* age, by 10\.7\n$",
    "two_hospitals.py": r"(Hospital [AB]: accuracy (0\.9\d\d|1\.000), sensitivity .*\n){2}$",
    "quickstart.py": r"pooled accuracy 0\.9\d\d\nHospital A: [01]\.\d{3}\n(.*\n){4}$",
    "own_algorithm.py": r"pooled accuracy 0\.9\d\d\n$",
    "sweep.py": r"(learning rate 0\.\d+: test loss 0\.\d{4} \(sd over seeds 0\.\d{4}\)\n){4}$",
}


def test_every_example_is_tested():
    assert {path.name for path in (REPO / "examples").glob("*.py")} == set(PROMISES)


# One after the other in one process, as starting JAX takes longer than most of them.
RUN_ALL = """
import contextlib, io, json, runpy, sys, traceback
outcomes = {}
for path in sys.argv[1:]:
    text, error = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(text):
            runpy.run_path(path, run_name="__main__")
    except BaseException:
        error = traceback.format_exc()
    outcomes[path] = (text.getvalue(), error)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def outcomes():
    paths = [str(REPO / "examples" / name) for name in PROMISES]
    command = [sys.executable, "-c", RUN_ALL, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", PROMISES)
def test_example(outcomes, name):
    output, error = outcomes[str(REPO / "examples" / name)]
    assert not error, error
    assert re.match(PROMISES[name], output), output


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMISES)
def test_example_by_itself(name):
    done = subprocess.run(
        [sys.executable, str(REPO / "examples" / name)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.match(PROMISES[name], done.stdout), done.stdout


@pytest.mark.parametrize("name", PROMISES)
def test_examples_are_short(name):
    assert len((REPO / "examples" / name).read_text().splitlines()) <= 40


def test_the_readme_shows_the_quickstart():
    code = (REPO / "examples" / "quickstart.py").read_text().split("\n\n", 1)[1]
    assert code.strip() in (REPO / "README.md").read_text()

"""Every example runs as a user would run it, and says what it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

PROMISES = {
    "quickstart.py": r"pooled accuracy 0\.9\d\d\nHospital A: [01]\.\d{3}\n(.*\n){4}$",
    "own_algorithm.py": r"pooled accuracy 0\.9\d\d\n$",
    "sweep.py": r"(learning rate 0\.\d+: test loss 0\.\d{4} \(sd over seeds 0\.\d{4}\)\n){4}$",
}


def test_every_example_is_tested():
    assert {path.name for path in (REPO / "examples").glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_example(name):
    done = subprocess.run(
        [sys.executable, str(REPO / "examples" / name)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.match(PROMISES[name], done.stdout), done.stdout


def test_the_readme_shows_the_quickstart():
    code = (REPO / "examples" / "quickstart.py").read_text().split("\n\n", 1)[1]
    assert code.strip() in (REPO / "README.md").read_text()

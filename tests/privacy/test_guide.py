"""The guide's examples run, and show what they say."""

import re
from pathlib import Path

import jax
import numpy as np

from fedjax_med.privacy import ClientLevel

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "privacy.md"


def test_the_examples_run(capsys):
    text = GUIDE.read_text(encoding="utf-8")
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(code, str(GUIDE), "exec"), names)
    told = capsys.readouterr().out
    assert "Protected: each hospital" in told and "Protected: each record" in told
    run = names["run"]
    assert run.rounds == 20 and 7.9 < run.history["epsilon"][-1] <= 8.0
    for leaf in jax.tree.leaves(names["private_records"].variables.params):
        assert np.isfinite(leaf).all()
    # What the guide says of twenty hospitals.
    twenty = ClientLevel(1.0, 1e-3, 10.0).plan(population=20, rounds=100)
    assert round(twenty.epsilon_after(100).value, 1) == 3.1

"""The examples of the guides run, and show what they say."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_clinical_tables(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "clinical_tables.md").read_text(), re.S)
    names: dict = {}
    exec(compile(code, "clinical_tables.md", "exec"), names)
    told = capsys.readouterr().out
    assert "pooled Estimate(value=0.9" in told and "worst Hospital " in told
    assert names["table"].kind == "binary"
    # Some measurements of the nuclei matter, and larger ones are worse.
    assert names["importance"].pooled.mean.max() > 0
    assert np.median(names["odds"].value) > 1


@pytest.mark.slow
def test_secure_aggregation(capsys):
    text = (DOCS / "secure_aggregation.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict = {}
    exec(compile(code, "secure_aggregation.md", "exec"), names)
    told = capsys.readouterr().out
    assert "dropped out" in told and "epsilon " in told
    for run in (names["masked"], names["private"]):
        assert run.evaluations[-1].pooled["accuracy"] > 0.9

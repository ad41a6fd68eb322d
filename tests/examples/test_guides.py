"""The examples of the guides run, and show what they say."""

import re
from pathlib import Path

import numpy as np

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

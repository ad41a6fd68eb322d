"""The guide's example runs, and finds what it says it finds."""

import re
from pathlib import Path

import numpy as np

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "preprocessing.md"


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    names: dict = {}
    exec(compile(code, str(GUIDE), "exec"), names)
    assert "South cholesterol seems to be in mmol/L" in capsys.readouterr().out
    assert np.isfinite(names["ready"].train.examples["x"]).all()
    # The rows were float64 there, and float32 in the dataset: 200 +- 2e-5, divided by 30 and more.
    want = names["ready"].train.examples["x"][:5]
    np.testing.assert_allclose(names["rows"], want, rtol=1e-6, atol=1e-6)

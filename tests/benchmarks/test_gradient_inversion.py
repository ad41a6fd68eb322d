"""The table of gradient inversion in the guide is that of the committed results."""

import json

from benchmarks.records import REPO

RESULTS = REPO / "benchmarks/results/gradient_inversion-cpu.jsonl"


def test_table_of_the_guide():
    text = (REPO / "docs/privacy_audits.md").read_text("utf-8")
    lines = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]
    assert len(lines) == 9
    for line in lines:
        assert not line["uncommitted_changes"]
        assert f"| {line['seen']} | {line['psnr']:.0f} |" in text

"""Drug response of cancer cell lines (GDSC), a hospital per cancer type: missing responses, new patients.

Every seed divides the responses (or the cell lines) anew, with the drugs' scales from its own training
responses; all divisions of a method are one compiled call. Rates are fixed, nothing is tuned.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records
from fedjax_med.datasets import gdsc_ic50
from fedjax_med.studies import response_training as training

BATCH_SIZE = 16

SETTINGS = {
    "responses": training.RESPONSES,
    "cell lines": training.PATIENTS,
    "cancer type left out": training.LEFT_OUT,
}


def populations(data_dir: str | None, seeds: int) -> list[training.Population]:
    """Both divisions for every seed, and every cancer type left out."""
    return training.populations(
        gdsc_ic50(data_dir=data_dir), range(seeds), seeds_left_out=range(seeds)
    )


def summed(setting: str, method: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record: means over seeds with 95 % intervals, clients left out averaged before."""
    from scipy import stats

    seeds = sorted({p["seed"] for p in parts})
    record: dict[str, Any] = {"setting": setting, "method": method, "seeds": len(seeds)}
    for name in ("rmse", "spearman", "precision", "ndcg"):
        if any(p[name] is None for p in parts):
            record[name] = None
            continue
        by_seed = [np.mean([p[name] for p in parts if p["seed"] == s]) for s in seeds]
        half = stats.t.ppf(0.975, len(seeds) - 1) * np.std(by_seed, ddof=1) / len(seeds) ** 0.5
        record[name] = {"mean": float(np.mean(by_seed)), "half_width": float(half)}
    if setting == "cancer type left out":
        per_seed = len(parts) // len(seeds)
        record["rmse_by_client"] = [
            float(np.mean([p["rmse"] for p in parts if p["population"] == i]))
            for i in sorted({p["population"] for p in parts})
        ][:per_seed]
    else:
        record["rmse_by_client"] = np.mean([p["rmse_by_client"] for p in parts], 0).tolist()
    return record


def records_of(
    method: str, parts: Sequence[training.Population], made: Sequence[training.Outputs]
) -> list[dict[str, Any]]:
    """A record per setting."""
    scored = [
        training.judged(parts[o.population], o.outputs)
        | {"setting": parts[o.population].setting, "seed": o.seed, "population": o.population}
        for o in made
    ]
    return [
        summed(setting, method, own)
        for setting, key in SETTINGS.items()
        if (own := [s for s in scored if s["setting"] == key])
    ]


def measure(name: str, parts: Sequence[training.Population], rounds: int) -> list[dict[str, Any]]:
    """Trains a method on its divisions; a record per setting."""
    method = training.METHODS[name]
    parts = [p for p in parts if method.left_out or p.setting != training.LEFT_OUT]
    start = time.perf_counter()
    made = training.train(method, parts, rounds=rounds, batch_size=BATCH_SIZE)
    took = time.perf_counter() - start
    more = {"rounds": rounds, "seconds_of_all_settings": took}
    return [record | more for record in records_of(method.title, parts, made)]


def drug_means(parts: Sequence[training.Population]) -> list[dict[str, Any]]:
    """What knowing nothing of a patient gives: 0 on the scale of each drug."""
    zeros = [
        training.Outputs(i, seed, np.zeros(p.dataset.splits()["test"].examples["x"].shape))
        for i, p in enumerate(parts)
        for seed in p.seeds
    ]
    return records_of("mean of the drug", parts, zeros)


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The tables, as Markdown, under what the page says before them."""
    cases = [line for line in lines if "method" in line]
    environment = next(line for line in reversed(lines) if "jax" in line)
    head = (Path(__file__).parents[1] / "docs" / "drug_response.md").read_text()
    text = [head.partition("## Results")[0].rstrip(), "", "## Results", ""]
    text += [
        f"{cases[0]['seeds']} seeds; {environment['processor']}, JAX {environment['jax']}:",
        "",
        f"    {environment['command']}",
    ]
    for setting in SETTINGS:
        text += ["", f"### {setting.capitalize()}", ""]
        text += [
            f"| method | RMSE | Spearman | precision@{training.K} | NDCG@{training.K} | RMSE, worst type |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for line in cases:
            if line["setting"] == setting:
                cells = [
                    ""
                    if line[m] is None
                    else f"{line[m]['mean']:.3f} ± {line[m]['half_width']:.3f}"
                    for m in ("rmse", "spearman", "precision", "ndcg")
                ]
                worst = max(line["rmse_by_client"])
                text.append(f"| {line['method']} | {' | '.join(cells)} | {worst:.3f} |")
    return "\n".join(text) + "\n"


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("drug_response", __doc__)
    parser.add_argument("--seeds", type=records.at_least(2), default=5, help="default: 5")
    parser.add_argument("--rounds", type=records.at_least(1), default=60, help="default: 60")
    parser.add_argument("--page", metavar="FILE", help="write the page from --json, train nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.page:
        lines = [json.loads(line) for line in Path(a.json).read_text().splitlines()]
        Path(a.page).write_text(page(lines))
        return
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError

    try:
        parts = populations(a.data_dir, a.seeds)
    except DataError as error:
        parser.error(str(error))
    for record in drug_means(parts):
        output.write({"benchmark": "drug_response"} | record)
    for name in training.METHODS:
        for record in measure(name, parts, a.rounds):
            output.write({"benchmark": "drug_response"} | record)
    shown = records.shown_command("drug_response", arguments)
    output.write({"benchmark": "drug_response", **records.environment(), "command": shown})


if __name__ == "__main__":
    main()

"""Link prediction on UMLS with its relations spread over hospitals: FedE, isolation, collection.

Four models; 3, 5 and 10 hospitals and all seeds of a method are one compiled call. Budgets and rates are
the same everywhere and nothing is tuned.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import records

DIVISIONS = (3, 5, 10)
MODELS = ("TransE", "DistMult", "ComplEx", "RotatE")
METHODS = ("FedE", "isolation", "collection")
EPOCHS = 3


def make_parser() -> records.Parser:
    """The command line."""
    parser = records.data_parser("knowledge_graph", __doc__)
    parser.add_argument("--seeds", type=records.at_least(2), default=5, help="default: 5")
    parser.add_argument("--rounds", type=records.at_least(1), default=20, help="default: 20")
    parser.add_argument("--model", choices=(*MODELS, "all"), default="all", help="default: all")
    parser.add_argument("--page", metavar="FILE", help="write the page from --json, train nothing")
    return parser


def joined(datasets: Sequence[Any]) -> Any:
    """One dataset whose clients are those of all divisions, numbered on."""
    from fedjax_med.data import ClientArrays

    first = np.cumsum([0, *(d.num_clients for d in datasets)])
    splits = {}
    for split in datasets[0].splits():
        parts = [d.splits()[split] for d in datasets]
        examples = {
            key: np.concatenate([p.examples[key] for p in parts])
            for key in ("head", "relation", "tail")
        }
        own = [p.examples["client"] + a for p, a in zip(parts, first, strict=False)]
        examples["client"] = np.concatenate(own).astype(np.int32)
        splits[split] = ClientArrays(examples, np.concatenate([p.sizes for p in parts]))
    names = [f"{name} of {d.num_clients}" for d in datasets for name in d.client_names]
    return datasets[0].replace(client_names=tuple(names), **splits)


def collected(dataset: Any) -> Any:
    """All triples of a division at one client; they remember whose they were."""
    from fedjax_med.data import ClientArrays

    first = np.cumsum([0, *DIVISIONS])
    splits = {
        split: ClientArrays(a.examples, np.add.reduceat(a.sizes, first[:-1]))
        for split, a in dataset.splits().items()
    }
    return dataset.replace(client_names=tuple(f"all of {n}" for n in DIVISIONS), **splits)


def measure(model: str, method: str, dataset: Any, seeds: int, rounds: int) -> list[dict[str, Any]]:
    """One record per division."""
    from scipy import stats

    from fedjax_med import tasks
    from fedjax_med.engine import grid
    from fedjax_med.studies import graphs

    graph = tasks.graph_of(dataset)
    first = np.cumsum([0, *DIVISIONS])
    members = [range(a, b) for a, b in itertools.pairwise(first.tolist())]
    if method == "collection":
        dataset, members = collected(dataset), [[i] for i in range(len(DIVISIONS))]
    start = time.perf_counter()
    run, task = graphs.train(
        model,
        graphs.TRAININGS[METHODS.index(method)],
        dataset,
        graph,
        grid(seed=range(seeds)).for_each(members),
        graphs.GraphSettings(rounds=rounds, local_epochs=EPOCHS),
    )
    took = time.perf_counter() - start
    (evaluation,) = run.evaluations
    out = []
    for number, (clients, own) in enumerate(zip(DIVISIONS, members, strict=True)):
        record: dict[str, Any] = {"model": model, "method": method, "clients": clients}
        size = dataset.splits()["test"].sizes[list(own)]
        for name in task.metric_names:
            per_client = evaluation.per_client[name][number * seeds : (number + 1) * seeds]
            # Weighted by triples: a hospital without test triples (NaN) has weight 0.
            value = np.nan_to_num(per_client[:, list(own)]) @ size / size.sum()
            half = stats.t.ppf(0.975, seeds - 1) * value.std(ddof=1) / seeds**0.5
            record[name] = {"mean": float(value.mean()), "half_width": float(half)}
        out.append(record | {"seeds": seeds, "rounds": rounds, "seconds_of_three_divisions": took})
    return out


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The tables, as Markdown."""
    cases = [line for line in lines if "model" in line]
    environment = next(line for line in reversed(lines) if "jax" in line)
    head = (Path(__file__).parents[1] / "docs" / "knowledge_graph.md").read_text()
    text = [head.partition("## Results")[0].rstrip(), "", "## Results", ""]
    text += [
        f"{cases[0]['seeds']} seeds, {cases[0]['rounds']} rounds of {EPOCHS} local epochs; "
        f"{environment['processor']}, JAX {environment['jax']}:",
        "",
        *dict.fromkeys(f"    {line['command']}" for line in lines if "command" in line),
    ]
    for clients in DIVISIONS:
        text += [
            "",
            f"### {clients} hospitals",
            "",
            "| model | trained by | MRR | hits@1 | hits@3 ",
        ]
        text[-1] += "| hits@10 |"
        text.append("| --- | --- | ---: | ---: | ---: | ---: |")
        for line in cases:
            if line["clients"] == clients:
                cells = [
                    f"{line[m]['mean']:.3f} ± {line[m]['half_width']:.3f}"
                    for m in ("mrr", "hits@1", "hits@3", "hits@10")
                ]
                text.append(f"| {line['model']} | {line['method']} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = make_parser()
    a = parser.parse_args(arguments)
    if a.page:
        import json

        lines = [json.loads(line) for line in Path(a.json).read_text().splitlines()]
        Path(a.page).write_text(page(lines))
        return
    output = records.Output(a.json, parser)
    from fedjax_med.data import DataError
    from fedjax_med.datasets import umls

    try:
        dataset = joined([umls(data_dir=a.data_dir, clients=n) for n in DIVISIONS])
    except DataError as error:
        parser.error(str(error))
    for model in MODELS if a.model == "all" else (a.model,):
        for method in METHODS:
            for record in measure(model, method, dataset, a.seeds, a.rounds):
                output.write({"benchmark": "knowledge_graph"} | record)
    shown = records.shown_command("knowledge_graph", arguments)
    output.write({"benchmark": "knowledge_graph", **records.environment(), "command": shown})


if __name__ == "__main__":
    main()

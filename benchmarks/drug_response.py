"""Drug response of cancer cell lines (GDSC), a hospital per cancer type: missing responses, new patients.

Every seed divides the responses (or the cell lines) anew, with the drugs' scales from its own training
responses; all divisions of a method are one compiled call. Rates are fixed, nothing is tuned.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import records

K, KNOWN, BATCH_SIZE = 5, 20, 16
SETTINGS = ("responses", "cell lines", "cancer type left out")


class Method(NamedTuple):
    """A row of the table.

    Attributes:
      model: "factorisation" or "autoencoder".
      build: `(fedjax_med.algorithms, optax, gradient) -> algorithm`.
      personal: whether clients are judged by models of their own.
      pooled: whether all rows are at one client.
      left_out: whether cancer types are left out as well.
    """

    model: str
    build: Callable[..., Any]
    personal: bool = False
    pooled: bool = False
    left_out: bool = False


_FACTORS = "factorisation"
_ENCODER = "autoencoder"
METHODS = {
    "factorisation, FedAvg": Method(
        _FACTORS, lambda fm, optax, g: fm.fed_avg(g, optax.adam(0.03)), left_out=True
    ),
    "factorisation, FedProx": Method(
        _FACTORS, lambda fm, optax, g: fm.fed_prox(g, optax.adam(0.03), mu=0.01)
    ),
    "factorisation, FedAdam": Method(
        _FACTORS,
        lambda fm, optax, g: fm.fed_adam(g, optax.adam(0.03), server_learning_rate=0.03),
    ),
    "factorisation, Ditto": Method(
        _FACTORS, lambda fm, optax, g: fm.ditto(g, optax.adam(0.03), lam=0.1), personal=True
    ),
    "factorisation, alone": Method(
        _FACTORS, lambda fm, optax, g: fm.local_only(g, optax.adam(0.03)), personal=True
    ),
    "factorisation, pooled": Method(
        _FACTORS, lambda fm, optax, g: fm.fed_avg(g, optax.adam(0.03)), pooled=True
    ),
    "autoencoder, FedAvg": Method(_ENCODER, lambda fm, optax, g: fm.fed_avg(g, optax.adam(0.01))),
    "autoencoder, FedPer (own encoder)": Method(
        _ENCODER,
        lambda fm, optax, g: fm.fed_per(
            g, optax.adam(0.01), is_personal=fm.layers("encoder"), weighting=fm.by_examples
        ),
        personal=True,
    ),
    "autoencoder, pooled": Method(
        _ENCODER, lambda fm, optax, g: fm.fed_avg(g, optax.adam(0.01)), pooled=True
    ),
}


class Population(NamedTuple):
    """A division: scaled rows of 13 clients, those that train, and what is judged."""

    setting: str
    dataset: Any
    scale: Any
    members: tuple[int, ...]
    judged: tuple[int, ...]
    seeds: tuple[int, ...]


def populations(data_dir: str | None, seeds: int) -> list[Population]:
    """Both divisions for every seed, and every cancer type left out."""
    from fedjax_med.data import ClientArrays
    from fedjax_med.datasets._gdsc import ask_for_the_others, gdsc_ic50
    from fedjax_med.tasks import drug_scale

    out = []
    everyone = tuple(range(13))
    for held_out in SETTINGS[:2]:
        for seed in range(seeds):
            raw = gdsc_ic50(data_dir=data_dir, held_out=held_out, known=KNOWN, seed=seed)
            scale = drug_scale(raw)
            out.append(Population(held_out, scale.apply(raw), scale, everyone, everyone, (seed,)))
    raw = gdsc_ic50(data_dir=data_dir, held_out="responses", test=1e-9)  # all in training
    for index in everyone:
        others = tuple(i for i in everyone if i != index)
        scale = drug_scale(raw.select([raw.client_names[i] for i in others]))
        asked = ask_for_the_others(raw.train.examples["x"], KNOWN, 0)
        whole = scale.apply(raw.replace(test=ClientArrays(asked, raw.train.sizes)))
        out.append(Population(SETTINGS[2], whole, scale, others, (index,), tuple(range(seeds))))
    return out


def joined(parts: Sequence[Population], pooled: bool) -> Any:
    """One dataset of the clients of all divisions."""
    from fedjax_med.data import ClientArrays

    datasets = [p.dataset.pooled() if pooled else p.dataset for p in parts]
    splits = {
        split: ClientArrays(
            {
                key: np.concatenate([d.splits()[split].examples[key] for d in datasets])
                for key in ("x", "y", "measured")
            },
            np.concatenate([d.splits()[split].sizes for d in datasets]),
        )
        for split in ("train", "test")
    }
    names = [f"{i}: {name}" for i, d in enumerate(datasets) for name in d.client_names]
    return datasets[0].replace(client_names=tuple(names), **splits)


def judged(population: Population, outputs: np.ndarray) -> dict[str, Any]:
    """Metrics of standardised outputs `[rows, drugs]` for the clients that are judged."""
    from fedjax_med.evaluation.recommendation import ndcg_at_k, precision_at_k, spearman

    arrays = population.dataset.test
    rows = arrays.row_indices(population.judged)
    e = {key: value[rows] for key, value in arrays.examples.items()}
    z, known = outputs[rows].astype(np.float64), e["measured"]
    error = np.where(known, (z - e["y"]) * population.scale.scale, 0)
    client = np.repeat(np.arange(len(population.judged)), arrays.sizes[list(population.judged)])
    by_client = [
        float(np.sqrt((error[client == c] ** 2).sum() / known[client == c].sum()))
        for c in range(len(population.judged))
    ]
    with np.errstate(over="ignore"):
        gain = np.where(known, 2.0 ** -e["y"].astype(np.float64), 0)
    return {
        "rmse": float(np.sqrt((error**2).sum() / known.sum())),
        "spearman": _mean(spearman(z, e["y"], known)),
        "precision": _mean(precision_at_k(-z, -e["y"], K, known)),
        "ndcg": _mean(ndcg_at_k(-z, gain, K, known)),
        "rmse_by_client": by_client,
    }


def _mean(values: np.ndarray) -> float | None:
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


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
    if setting == SETTINGS[2]:
        per_seed = len(parts) // len(seeds)
        record["rmse_by_client"] = [
            float(np.mean([p["rmse"] for p in parts if p["population"] == i]))
            for i in sorted({p["population"] for p in parts})
        ][:per_seed]
    else:
        record["rmse_by_client"] = np.mean([p["rmse_by_client"] for p in parts], 0).tolist()
    return record


def measure(name: str, parts: Sequence[Population], rounds: int) -> list[dict[str, Any]]:
    """Trains a method on its divisions; a record per setting."""
    import optax

    from fedjax_med import algorithms, models, tasks
    from fedjax_med.engine import Experiments, epochs, simulate
    from fedjax_med.evaluation import predict_experiments

    method = METHODS[name]
    parts = [p for p in parts if method.left_out or p.setting != SETTINGS[2]]
    model = (
        models.response_factorisation(8, ridge=4.0)
        if method.model == _FACTORS
        else models.response_autoencoder()
    )
    dataset = joined(parts, method.pooled)
    task = tasks.masked_responses(model, dataset.train.examples)
    algorithm = method.build(algorithms, optax, task.gradient)
    each = [(i, seed) for i, p in enumerate(parts) for seed in p.seeds]
    members = tuple(
        np.array([i]) if method.pooled else 13 * i + np.array(parts[i].members) for i, _ in each
    )
    start = time.perf_counter()
    run = simulate(
        algorithm,
        dataset,
        task=task,
        rounds=rounds,
        local_work=epochs(1, batch_size=BATCH_SIZE),
        experiments=Experiments(tuple(seed for _, seed in each), {}, members),
    )
    predictions = predict_experiments(
        run,
        dataset,
        model,
        algorithm=algorithm if method.personal else None,
        link=lambda outputs: outputs,
        labels=lambda examples: examples["y"],
    )
    took = time.perf_counter() - start
    first = np.cumsum([0, *(p.dataset.test.num_examples for p in parts)])
    scored = [
        judged(parts[i], prediction.outputs[first[i] : first[i + 1]])
        | {"setting": parts[i].setting, "seed": seed, "population": i}
        for (i, seed), prediction in zip(each, predictions, strict=True)
    ]
    return [
        summed(setting, name, [s for s in scored if s["setting"] == setting])
        | {"rounds": rounds, "seconds_of_all_settings": took}
        for setting in dict.fromkeys(p.setting for p in parts)
    ]


def drug_means(parts: Sequence[Population]) -> list[dict[str, Any]]:
    """What knowing nothing of a patient gives: 0 on the scale of each drug."""
    scored = [
        judged(p, np.zeros((p.dataset.test.num_examples, 138)))
        | {"setting": p.setting, "seed": seed, "population": i}
        for i, p in enumerate(parts)
        for seed in p.seeds
    ]
    return [
        summed(setting, "mean of the drug", [s for s in scored if s["setting"] == setting])
        for setting in SETTINGS
    ]


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
            f"| method | RMSE | Spearman | precision@{K} | NDCG@{K} | RMSE, worst type |",
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
    for name in METHODS:
        for record in measure(name, parts, a.rounds):
            output.write({"benchmark": "drug_response"} | record)
    shown = records.shown_command("drug_response", arguments)
    output.write({"benchmark": "drug_response", **records.environment(), "command": shown})


if __name__ == "__main__":
    main()

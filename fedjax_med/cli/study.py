"""`fedjax-med study`: compares all methods on a dataset and writes table, figures and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedjax_med.cli.data import load
from fedjax_med.cli.errors import UsageError, bad_arguments
from fedjax_med.cli.options import StudyOptions
from fedjax_med.cli.run_folder import default_folder
from fedjax_med.data import FederatedDataset, check
from fedjax_med.evaluation import metric_title
from fedjax_med.reporting.files import TEMPORARY, write_json, write_text


def study_command(dataset_name: str, options: StudyOptions) -> int:
    """Runs the study that the options ask for; returns the exit status.

    Raises:
      UsageError, DataError, OSError: one sentence for the user.
    """
    folder = options.output or default_folder(dataset_name, "study")
    _refuse_used(folder)
    dataset = load(dataset_name, options.data_dir, raw=True)
    check(dataset, allow_missing=True)

    from fedjax_med.cli.training import quiet_jax
    from fedjax_med.reporting.study_report import write_study_report
    from fedjax_med.reporting.versions import versions

    quiet_jax()
    console = Console(stderr=True, quiet=options.quiet)
    with console.status("study") as status:
        result, figures = _studied(dataset_name, dataset, options, status.update)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", result)
    for name, svg in figures.items():
        write_text(folder / "figures" / f"{_file_name(name)}.svg", svg)
    write_study_report(folder / "report.html", result, figures=figures, versions=versions())
    if not options.quiet:
        print_study(result, Console())
    print(f"Report: {folder / 'report.html'}")
    return 0


def _studied(
    name: str, dataset: FederatedDataset, options: StudyOptions, tell: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The result and the figures by heading, of the design that fits the dataset."""
    from fedjax_med.reporting.design_figures import design_figures
    from fedjax_med.reporting.study_figures import study_figures
    from fedjax_med.studies import judge_patients, run_study, settings_for, summarise
    from fedjax_med.studies.designs import DESIGNS, run_design
    from fedjax_med.tasks import modality_of

    modality = modality_of(dataset)
    design = DESIGNS.get(modality)
    if design is not None:
        with bad_arguments():
            settings = design.choose(name, _chosen(options))
        studied = run_design(dataset, modality, settings, data_dir=options.data_dir, tell=tell)
        tell("figures")
        return studied.result, design_figures(modality, studied)
    with bad_arguments():
        settings = settings_for(name, modality, **_chosen(options))
    study = run_study(dataset, settings, tell=tell)
    tell("judging")
    judgements = judge_patients(study)
    result = summarise(study, judgements)
    tell("figures")
    return result, study_figures(study, judgements, result)


def _chosen(options: StudyOptions) -> dict[str, Any]:
    """Settings of the study that were given.

    Raises:
      UsageError: if a list cannot be read.
    """
    chosen = {
        "methods": options.methods and tuple(_parts(options.methods)),
        "num_seeds": options.seeds,
        "num_splits": options.splits,
        "test": options.test,
        "leave_one_out": options.leave_one_out,
        "num_resamples": options.resamples,
        "seed": options.seed,
        "rounds": options.rounds,
        "local_epochs": options.local_epochs,
        "batch_size": options.batch_size,
        "learning_rates": options.learning_rates
        and tuple(_numbers("--learning-rates", options.learning_rates, float)),
        "model": options.model,
        "hidden": options.hidden and tuple(_numbers("--hidden", options.hidden, int)),
        "impute": options.impute,
        "standardize": options.standardize,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(part) for part in _parts(text)]
    except ValueError:
        raise UsageError(f"{option} must be numbers separated by commas, got {text!r}.") from None


def print_study(result: dict[str, Any], console: Console) -> None:
    """Prints the main metric of every method, and what it means."""
    main = result["main_metric"]
    examples = result["about"]["examples"]
    table = Table(title=f"{metric_title(main)} on test {examples} of {result['dataset']['name']}")
    table.add_column("method")
    for column in ("mean of hospitals", "95 % interval", f"all {examples}", "worst hospital"):
        table.add_column(column, justify="right")
    left_out = result["left_out"]
    if left_out:
        table.add_column("hospital left out", justify="right")
    for name, method in result["methods"].items():
        found = method["metrics"][main]
        cells = [
            _number(found["mean"]["value"]),
            _interval(found["mean"]),
            _number(found["pooled"]["value"]),
            _number(found["worst"]["value"]),
        ]
        if left_out:
            cells.append(_number(left_out[name]["mean"][main]["value"]) if name in left_out else "")
        style = "bold" if name == result["chosen"] else None
        table.add_row(method["title"], *cells, style=style)
    console.print(table)
    for sentence in result["sentences"]:
        console.print(sentence, highlight=False)


def _refuse_used(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; give a folder.")
    if folder.is_dir() and any(not e.name.startswith(TEMPORARY) for e in folder.iterdir()):
        raise UsageError(
            f"--output {folder} is not empty and nothing is written over; give another folder."
        )


def _file_name(title: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in title.lower()).strip("_")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(found: dict[str, float | None]) -> str:
    low, high = found["low"], found["high"]
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"

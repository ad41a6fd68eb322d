"""`fedjax-med tradeoff`: utility against epsilon, as a table, a figure and a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

from fedjax_med.cli.data import load
from fedjax_med.cli.errors import UsageError, bad_arguments
from fedjax_med.cli.privacy_options import TradeoffOptions
from fedjax_med.cli.run_folder import default_folder
from fedjax_med.data import check
from fedjax_med.reporting.files import TEMPORARY, write_json, write_text


def tradeoff_command(dataset_name: str, options: TradeoffOptions) -> int:
    """Runs the study that the options ask for; returns the exit status.

    Raises:
      UsageError, DataError, OSError: one sentence for the user.
    """
    folder = options.output or default_folder(dataset_name, "tradeoff")
    if folder.exists() and (not folder.is_dir() or _is_used(folder)):
        raise UsageError(
            f"--output {folder} is not empty and nothing is written over; give another folder."
        )
    chosen = _chosen(options)
    dataset = load(dataset_name, options.data_dir, raw=True)
    check(dataset, allow_missing=True)

    from fedjax_med.cli.training import quiet_jax
    from fedjax_med.reporting.tradeoff_report import sentences, svg_of, write_tradeoff_report
    from fedjax_med.reporting.versions import versions
    from fedjax_med.studies.tradeoff import run_tradeoff
    from fedjax_med.studies.tradeoff_settings import TradeoffSettings

    quiet_jax()
    console = Console(stderr=True, quiet=options.quiet)
    with bad_arguments(), console.status("tradeoff") as status:
        result = run_tradeoff(dataset, TradeoffSettings(**chosen), tell=status.update)
    figure = svg_of(result)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", result)
    write_text(folder / "tradeoff.svg", figure)
    write_tradeoff_report(folder / "report.html", result, figure=figure, versions=versions())
    if not options.quiet:
        for sentence in sentences(result):
            print(sentence)
    print(f"Report: {folder / 'report.html'}")
    return 0


def _chosen(options: TradeoffOptions) -> dict[str, Any]:
    """Settings of the study that were given.

    Raises:
      UsageError: if a list cannot be read.
    """
    chosen = {
        "epsilons": _numbers("--epsilon", options.epsilon, float),
        "units": options.unit and (options.unit,),
        "delta": options.delta,
        "clip_norms": _numbers("--clip-norms", options.clip_norms, float),
        "model": options.model,
        "rounds": options.rounds,
        "hospital_rounds": options.hospital_rounds,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "learning_rates": _numbers("--learning-rates", options.learning_rates, float),
        "num_seeds": options.seeds,
        "num_splits": options.splits,
        "division": "own" if options.splits == 1 else None,
        "seed": options.seed,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _numbers(option: str, text: str | None, kind: Callable[[str], Any]) -> tuple[Any, ...] | None:
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} must be numbers separated by commas, got {text!r}.") from None


def _is_used(folder: Any) -> bool:
    return any(not entry.name.startswith(TEMPORARY) for entry in folder.iterdir())

"""`fedjax-med audit`: attacks a run's training, with protection and without, and writes the report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console

from fedjax_med.cli.configuration import RunConfig
from fedjax_med.cli.errors import UsageError, bad_arguments
from fedjax_med.cli.options import RunOptions
from fedjax_med.cli.privacy_options import AuditOptions
from fedjax_med.cli.run import load_dataset
from fedjax_med.cli.run_folder import RunFolder
from fedjax_med.reporting.files import TEMPORARY, write_json, write_text

_RUNS, _SHADOWS = 200, 32
_BATCH_SIZE, _STEPS = 16, 5  # of a protection of records that is tried on a run without any


def audit_command(run: Path, options: AuditOptions) -> int:
    """Audits the run in a folder; returns the exit status.

    Nothing is written before all attacks are done.

    Raises:
      UsageError, DataError, OSError: one sentence for the user.
    """
    _check(options)
    folder = RunFolder(run)
    if not folder.config.is_file():
        raise UsageError(
            f"{run} holds no run (there is no {folder.config.name}); give the folder of a "
            "`fedjax-med run`."
        )
    output = options.output or run / "audit"
    _refuse_used(output)
    config, fingerprint, _ = folder.read_config()
    dataset = load_dataset(config, RunOptions(data_dir=options.data_dir))
    if dataset.fingerprint() != fingerprint:
        raise UsageError(
            f"the data of {config.dataset} are not those of the run in {run}: their fingerprint was "
            f"{fingerprint[:12]}, now it is {dataset.fingerprint()[:12]}."
        )

    import jax

    from fedjax_med.attacks.run_audit import as_json, run_audit
    from fedjax_med.cli import training
    from fedjax_med.cli.preparation import prepare
    from fedjax_med.reporting.audit_figures import audit_figures
    from fedjax_med.reporting.audit_report import sentences, write_audit_report
    from fedjax_med.reporting.versions import versions

    training.quiet_start(config)
    stored = folder.preprocessing if folder.preprocessing.is_file() else None
    prepared = prepare(config, dataset, stored)
    console = Console(stderr=True, quiet=options.quiet)
    with jax.enable_x64(config.precision == "float64"), bad_arguments():
        subject = _subject(config, prepared, options)
        with console.status("audit") as status:
            findings = run_audit(
                subject,
                num_runs=options.runs or _RUNS,
                num_shadows=options.shadows or _SHADOWS,
                seed=options.seed or 0,
                tell=status.update,
            )
    result = {
        "run": run.name,
        "dataset": dataset.name,
        "algorithm": config.algorithm,
        **as_json(findings),
    }
    figures = audit_figures(findings)
    (output / "figures").mkdir(parents=True, exist_ok=True)
    write_json(output / "audit.json", result)
    for number, svg in enumerate(figures.values(), 1):
        write_text(output / "figures" / f"figure{number}.svg", svg)
    write_audit_report(
        output / "report.html",
        result,
        figures=figures,
        configuration=_settings(subject.protection, options),
        versions=versions(),
    )
    if not options.quiet:
        for sentence in sentences(result):
            print(sentence)
    print(f"Report: {output / 'report.html'}")
    return 0


def _subject(config: RunConfig, prepared: Any, options: AuditOptions) -> Any:
    """What is attacked: the run's model and training, and its protection or one that is tried."""
    from fedjax_med import tasks
    from fedjax_med.attacks.protection import Protection, Training, fed_avg_training
    from fedjax_med.attacks.run_audit import Subject
    from fedjax_med.cli import training

    pieces = training.build(config, prepared)
    made = tasks.for_dataset(
        pieces.dataset,
        config.model,
        hidden=config.hidden,
        center=prepared.center,
        scale=prepared.scale,
    )
    sizes, optimizer = pieces.dataset.train.sizes, pieces.client_optimizer
    if pieces.privacy is None:
        plain, protection = config, _tried(config, sizes, options)
        tried = fed_avg_training(optimizer, rounds=config.rounds, local_work=pieces.local_work)
        build_private: Any = tried.build_private
    else:
        if options.epsilon is not None:
            raise UsageError(
                f"--epsilon {options.epsilon} has no effect on a run with differential privacy, whose "
                "own is audited."
            )
        plain = dataclasses.replace(
            config, unit=None, epsilon=None, noise_multiplier=None, delta=None, clip_norm=None
        )
        noise = float(pieces.privacy.noise_multiplier)
        protection = Protection(
            dataclasses.replace(pieces.privacy.settings, noise_multiplier=noise)
        )

        def build_as_run(task: Any, gradient: Any, aggregator: Any) -> Any:
            return training._algorithm(config, task, optimizer, (gradient, aggregator))

        build_private = build_as_run

    without = training.build(plain, prepared)
    how = Training(
        config.rounds,
        without.local_work,
        without.sampler,
        lambda task: training._algorithm(plain, task, optimizer),
        build_private,
    )
    return Subject(pieces.dataset, made.kind, made.model, pieces.task, how, protection)


def _tried(config: RunConfig, sizes: Any, options: AuditOptions) -> Any:
    """A protection that is tried on a run without any; None if none was asked for."""
    if options.epsilon is None:
        return None
    from fedjax_med.attacks.protection import calibrated
    from fedjax_med.privacy import ClientLevel, RecordLevel
    from fedjax_med.studies.tradeoff_settings import default_delta

    clip_norm, largest = options.clip_norm or 1.0, int(sizes.max())
    if options.unit == "hospital":
        delta = options.delta or default_delta(len(sizes))
        settings = ClientLevel(clip_norm=clip_norm, delta=delta)
    else:
        settings = RecordLevel(
            clip_norm=clip_norm,
            delta=options.delta or default_delta(largest),
            batch_size=_BATCH_SIZE,
            steps=_STEPS,
            # A sample that is never cut is accounted for in a tenth of the time.
            largest_batch=max(_BATCH_SIZE, largest),
        )
    return calibrated(settings, options.epsilon, sizes, config.rounds)


def _settings(protection: Any, options: AuditOptions) -> dict[str, Any]:
    found = {"runs": options.runs or _RUNS, "shadows": options.shadows or _SHADOWS}
    found["seed"] = options.seed or 0
    if protection is not None:
        found |= {
            "protected": protection.unit,
            "noise multiplier": float(protection.settings.noise_multiplier),
            "clip norm": float(protection.settings.clip_norm),
            "delta": float(protection.settings.delta),
        }
    return found


def _check(options: AuditOptions) -> None:
    for name, least in (("runs", 20), ("shadows", 4), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name} must be at least {least}, got {value}.")
    if (options.shadows or 0) % 2:
        raise UsageError(f"--shadows must be even, got {options.shadows}.")
    for name in ("epsilon", "delta", "clip_norm"):
        value = getattr(options, name)
        if value is not None and not (value > 0 and value < float("inf")):
            raise UsageError(f"--{name.replace('_', '-')} must be above 0 and finite, got {value}.")
    if options.epsilon is None:
        for name in ("unit", "delta", "clip_norm"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(options, name)} has no effect without "
                    "--epsilon."
                )


def _refuse_used(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; give a folder.")
    if folder.is_dir() and any(not e.name.startswith(TEMPORARY) for e in folder.iterdir()):
        raise UsageError(
            f"--output {folder} is not empty and nothing is written over; give another folder."
        )

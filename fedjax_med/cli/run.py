"""`fedjax-med run`: trains, compares with the baselines and writes the report."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from fedjax_med.cli.configuration import RunConfig, resolve, resume
from fedjax_med.cli.data import load
from fedjax_med.cli.errors import UsageError, is_disk_full
from fedjax_med.cli.options import RunOptions, TrainingOptions
from fedjax_med.cli.run_folder import RunFolder, default_folder
from fedjax_med.data import FederatedDataset, check
from fedjax_med.reporting.files import read_json, write_json


def run_command(dataset_name: str, options: RunOptions) -> int:
    """Runs what the options ask for; returns the exit status.

    Nothing is written before all of it has been checked.

    Raises:
      UsageError, DataError, CheckpointError, OSError: one sentence for the user.
      KeyboardInterrupt: says how to go on.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if options.resume:
        if options.output is None:
            raise UsageError("--resume needs --output FOLDER, the folder of the run to go on with.")
        folder = RunFolder(options.output)
        stored, fingerprint, started = folder.read_config()
        config = resume(stored, dataset_name, options, str(folder.path))
        dataset = load_dataset(config, options)
        if dataset.fingerprint() != fingerprint:
            raise UsageError(
                f"the data of {dataset_name} are not those of the run in {folder.path}: their "
                f"fingerprint was {fingerprint[:12]}, now it is {dataset.fingerprint()[:12]}."
            )
    else:
        config = resolve(dataset_name, options)
        folder = RunFolder(options.output or default_folder(dataset_name, config.algorithm))
        folder.refuse_used()
        dataset = load_dataset(config, options)
    refuse_large_cohort(config, dataset)

    import jax

    from fedjax_med.cli import training
    from fedjax_med.cli.preparation import look_at, prepare

    if not options.resume:
        config = resolve(dataset_name, options, *look_at(dataset))
    training.quiet_start(config)
    # A run that was killed at its very beginning has nothing fitted yet.
    is_fitted = options.resume and (folder.preprocessing.exists() or folder.checkpoints.exists())
    prepared = prepare(config, dataset, folder.preprocessing if is_fitted else None)
    with jax.enable_x64(config.precision == "float64"):
        pieces = training.build(config, prepared)
        fingerprint = dataset.fingerprint()
        if not options.resume:
            folder.create(config, fingerprint, started)
        elif config != stored:
            folder.write_config(config, fingerprint, started)
        with _telling_how_to_resume(dataset_name, folder, options):
            if prepared.preprocessor is not None and not is_fitted:
                prepared.preprocessor.save(folder.preprocessing)
            result = _train(config, pieces, prepared, folder, options, started)
    if not options.quiet:
        from fedjax_med.cli.tables import print_result

        print_result(result, Console())
    print(f"Report: {folder.report}")
    return 0


def load_dataset(config: RunConfig, options: TrainingOptions) -> FederatedDataset:
    """A dataset in natural units whose every value has been checked; NaN is a missing one."""
    validation = config.early_stop is not None
    dataset = load(config.dataset, options.data_dir, validation=validation, raw=True)
    check(dataset, allow_missing=True)
    return dataset


def refuse_large_cohort(config: RunConfig, dataset: FederatedDataset) -> None:
    """Raises UsageError if a round would need more clients than there are."""
    if config.cohort.isdecimal() and int(config.cohort) > dataset.num_clients:
        raise UsageError(
            f"--cohort {config.cohort} is larger than the population of {dataset.name}, which has "
            f"{dataset.num_clients} clients; allowed are 1 to {dataset.num_clients}, or all."
        )


def _train(
    config: RunConfig,
    pieces: Any,
    prepared: Any,
    folder: RunFolder,
    options: RunOptions,
    started: str,
) -> dict[str, Any]:
    """Everything from the first round to the report."""
    from fedjax_med.cli import privacy
    from fedjax_med.engine import CheckpointPolicy, callbacks, simulate
    from fedjax_med.engine.checkpoint import latest_round
    from fedjax_med.reporting.report import write_report
    from fedjax_med.reporting.summary import summarise
    from fedjax_med.reporting.versions import versions

    found = versions()
    done = latest_round(folder.checkpoints) or 0
    kept = folder.trim_metrics(done)
    _note_versions(folder, found, resumed_at=done if options.resume else None)
    rounds = config.rounds
    watchers: list[Any] = []
    if pieces.early_stopping is not None:
        watchers.append(pieces.early_stopping)
        if _had_stopped(pieces.early_stopping, kept, config):
            rounds = done
    watchers.append(callbacks.JsonLines(folder.metrics))
    if options.tensorboard:
        watchers.append(callbacks.TensorBoard(folder.tensorboard))
    if not options.quiet:
        watchers.append(callbacks.ProgressBar())
    run = simulate(
        pieces.algorithm,
        pieces.dataset,
        task=pieces.task,
        rounds=rounds,
        local_work=pieces.local_work,
        cohort=pieces.sampler,
        placement=pieces.placement,
        lanes=config.lanes,
        rewrite=config.rewrite,
        seed=config.seed,
        evaluate_every=config.evaluate_every,
        evaluate_on=("test",) if pieces.early_stopping is None else ("validation", "test"),
        callbacks=watchers,
        checkpoint=CheckpointPolicy(
            folder.checkpoints, every=config.checkpoint_every, resume=options.resume
        ),
    )
    judged = _baselines(config, pieces, run.rounds, options) if config.baselines else {}
    result = summarise(
        run,
        pieces.dataset,
        pieces.task,
        judged,
        kind=pieces.kind,
        algorithm=config.algorithm,
        started=started,
        rounds_before=done,
        preprocessing=prepared.as_json(),
        note=prepared.note,
        privacy=None if pieces.privacy is None else privacy.told(pieces.privacy, run.rounds),
    )
    write_json(folder.result, result)
    write_report(folder.report, result, configuration=config.as_json(), versions=found)
    return result


def _baselines(config: RunConfig, pieces: Any, rounds: int, options: RunOptions) -> dict[str, Any]:
    """Evaluations by name, in the order of the report."""
    from fedjax_med.reporting import baselines
    from fedjax_med.reporting.no_model import no_model_baseline

    common = {"rounds": rounds, "local_work": pieces.local_work, "seed": config.seed}
    arguments = (pieces.dataset, pieces.task, pieces.client_optimizer)
    console = Console(stderr=True, quiet=options.quiet)
    with console.status("baselines: each hospital alone"):
        alone = baselines.train_alone(*arguments, placement=pieces.placement, **common)
    judged = {
        "no_model": no_model_baseline(pieces.dataset, pieces.kind),
        "local_only": baselines.local_only_baseline(alone),
    }
    # A hospital knows nothing of the relations of a graph that others have.
    if pieces.kind != "links" and pieces.dataset.num_clients <= baselines.MAX_SITES:
        with console.status("baselines: the best single hospital"):
            best = baselines.best_site_baseline(alone, pieces.dataset, pieces.task)
        judged["best_site"] = best.evaluation
    with console.status("baselines: all patients pooled"):
        judged["pooled"] = baselines.pooled_baseline(*arguments, **common)
    return judged


def _had_stopped(early: Any, records: list[dict[str, Any]], config: RunConfig) -> bool:
    """Whether the run had ended early when it was interrupted, before its report."""
    import numpy as np

    from fedjax_med.engine import Evaluation, Progress

    past = [
        Evaluation(
            r["split"],
            r["round"],
            # null is an undefined metric
            {n: np.asarray(np.nan if v is None else v) for n, v in r["pooled"].items()},
            {},
        )
        for r in records
        if "split" in r
    ]
    if not past:
        return False
    done = past[-1].round
    return early(
        Progress(done, config.rounds, done, {}, [], [], past, 0.0, 1.0, lambda: None)  # type: ignore[arg-type]
    )


def _note_versions(folder: RunFolder, found: dict[str, Any], resumed_at: int | None) -> None:
    """Writes `versions.json`; a resume with other software is added and told."""
    if resumed_at is None or not folder.versions.exists():
        write_json(folder.versions, found)
        return
    before = read_json(folder.versions)
    resumed = before.get("resumed_with", [])
    last = resumed[-1] if resumed else before
    changed = [name for name, value in found.items() if last.get(name) != value]
    if changed:
        print(
            f"fedjax-med: warning: {', '.join(changed)} changed since this run began, so its "
            "numbers may differ in their last digits.",
            file=sys.stderr,
        )
        entry = {"round": resumed_at, **found}
        write_json(folder.versions, {**before, "resumed_with": [*resumed, entry]})


@contextlib.contextmanager
def _telling_how_to_resume(
    dataset_name: str, folder: RunFolder, options: RunOptions
) -> Iterator[None]:
    words = ["fedjax-med", "run", dataset_name, "--output", str(folder.path), "--resume"]
    if options.data_dir is not None:
        words += ["--data-dir", str(options.data_dir)]
    command = shlex.join(words)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"Go on with: {command}") from None
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise UsageError(
            f"the disk of {folder.path} is full; free some space and go on with: {command}"
        ) from error

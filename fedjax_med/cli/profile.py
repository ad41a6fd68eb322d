"""`fedjax-med profile`: where the time of a few rounds goes."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fedjax_med.cli.configuration import RunConfig, resolve
from fedjax_med.cli.errors import UsageError
from fedjax_med.cli.options import ProfileOptions, RunOptions
from fedjax_med.cli.run import load_dataset, refuse_large_cohort
from fedjax_med.cli.run_folder import RunFolder, default_folder
from fedjax_med.reporting.files import write_json

_ROUNDS = 20


def profile_command(dataset_name: str, options: ProfileOptions) -> int:
    """Profiles what the options ask for; returns the exit status.

    Nothing is written before all of it has been checked.

    Raises:
      UsageError, DataError, OSError: one sentence for the user.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
    given["rounds"] = _ROUNDS if options.rounds is None else options.rounds
    # Evaluation, baselines and checkpoints are no choices here: a profile keeps no model.
    asked = RunOptions(**given, baselines=False)
    config = resolve(dataset_name, asked)
    folder = RunFolder(
        options.output or default_folder(dataset_name, f"{config.algorithm}-profile")
    )
    folder.refuse_used()
    dataset = load_dataset(config, options)
    refuse_large_cohort(config, dataset)

    import jax

    from fedjax_med.cli import training
    from fedjax_med.cli.preparation import look_at, prepare

    config = resolve(dataset_name, asked, *look_at(dataset))
    training.quiet_start(config)
    prepared = prepare(config, dataset)
    with jax.enable_x64(config.precision == "float64"):
        pieces = training.build(config, prepared)
        folder.create(config, dataset.fingerprint(), started)
        result = _profile(config, pieces, folder)
    result = {"dataset": dataset_name, "started": started, **result}
    written = folder.path / "profile.json"
    write_json(written, result)
    from fedjax_med.reporting.profile_figure import write_figure

    write_figure(folder.path / "profile.png", result)
    if not options.quiet:
        from fedjax_med.cli.profile_table import print_profile

        print_profile(result, Console())
    print(f"Trace (open it at https://ui.perfetto.dev): {folder.path / 'trace.json.gz'}")
    print(f"Profile: {written}")
    return 0


def _profile(config: RunConfig, pieces: Any, folder: RunFolder) -> dict[str, Any]:
    """Everything from the peaks of the device to the numbers."""
    import jax
    import jax.numpy as jnp

    from fedjax_med.cli.profile_run import STAGES, profile_rounds
    from fedjax_med.engine.phases import PREFIX
    from fedjax_med.reporting.profile_summary import (
        notes,
        seconds_of_rounds,
        throughput,
        where_time_goes,
    )
    from fedjax_med.reporting.profile_trace import module_name, operation_scopes, read_trace
    from fedjax_med.reporting.roofline import measure_peaks
    from fedjax_med.reporting.versions import versions

    found = versions()
    write_json(folder.versions, found)
    rounds = config.rounds
    peaks = measure_peaks(jnp.dtype(config.precision))
    trace_path = folder.path / "trace.json.gz"
    with tempfile.TemporaryDirectory(prefix=".profiler-", dir=folder.path) as scratch:
        done = profile_rounds(
            pieces,
            rounds=rounds,
            lanes=config.lanes,
            rewrite=config.rewrite,
            seed=config.seed,
            folder=Path(scratch),
        )
        _keep_trace(Path(scratch), trace_path, folder.path / "xplane.pb")
    trace = read_trace(trace_path, PREFIX, module_name(done.program_text))
    run, step = done.run, done.step
    timed = seconds_of_rounds(run.seconds_per_round, rounds, 2 * rounds) / rounds
    went = where_time_goes(trace, operation_scopes(done.program_text), rounds)
    # Simulated devices share the one CPU there is.
    devices = pieces.placement.num_devices if jax.default_backend() != "cpu" else 1
    steps = run.local_steps / run.rounds
    traced = went["window_s"] - went["host_phases_s"].get("evaluate", 0.0)
    return {
        "algorithm": config.algorithm,
        "rounds": rounds,
        "rounds_in_all": STAGES * rounds,
        "placement": pieces.placement.describe(),
        "lanes": run.num_lanes,
        "versions": found,
        "options": config.as_json(),
        "compile_s": run.timings.compile_s,
        "seconds_per_round": timed,
        "traced_seconds_per_round": traced,
        "local_steps_per_round": steps,
        "useful_fraction": run.useful_fraction,
        "local_step": {"flops": step.flops, "bytes": step.bytes},
        "bytes_per_round": None if step.bytes is None else step.bytes * steps,
        "flops_per_round": None if step.flops is None else step.flops * steps,
        "memory_bytes": run.memory_bytes,
        "peaks": peaks._asdict(),
        "peak_devices": devices,
        "throughput": throughput(
            seconds_per_round=timed,
            steps_per_round=steps,
            useful_fraction=run.useful_fraction,
            step_flops=step.flops,
            step_bytes=step.bytes,
            peaks=peaks,
            num_devices=devices,
        ),
        "traced": went,
        "notes": notes(
            trace, has_loops=step.has_loops, passes=done.passes, counted=step.flops is not None
        ),
    }


def _keep_trace(scratch: Path, trace: Path, planes: Path) -> None:
    """Takes what is worth keeping out of the profiler's folders.

    Raises:
      UsageError: if the profiler wrote no trace.
    """
    made = sorted(scratch.rglob("perfetto_trace.json.gz"))
    if not made:
        raise UsageError(
            "the profiler of this JAX wrote no trace; another profiler may be running on this "
            "machine."
        )
    shutil.move(made[-1], trace)
    for plane in sorted(scratch.rglob("*.xplane.pb"))[-1:]:
        shutil.move(plane, planes)

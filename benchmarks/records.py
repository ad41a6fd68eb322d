"""What every result says besides its numbers: the device, the versions, the commit, the command."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

REPO = Path(__file__).resolve().parents[1]
_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "fedjax_med")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:].rstrip(".")
        self.exit(2, f"{sentence}.\n")


def bare_parser(module: str, description: str | None) -> Parser:
    """A parser for `python -m benchmarks.<module>`; describes it by its docstring's first line."""
    return Parser(
        prog=f"python -m benchmarks.{module}",
        description=(description or "").partition("\n")[0],
        allow_abbrev=False,
    )


def parser(module: str, description: str | None) -> Parser:
    """`bare_parser` with the option `--json`."""
    made = bare_parser(module, description)
    made.add_argument(
        "--json",
        default="-",
        metavar="FILE",
        help="file that gets a JSON line per case, after those it has already; - prints them",
    )
    return made


def data_parser(module: str, description: str | None) -> Parser:
    """`parser` with the option `--data-dir`, for benchmarks on real data."""
    made = parser(module, description)
    made.add_argument(
        "--data-dir",
        default=os.environ.get("FEDJAX_MED_DATA"),
        help="folder with local copies of the datasets (default: FEDJAX_MED_DATA, or download)",
    )
    return made


def at_least(least: int):
    """An argument type: whole numbers from `least` on."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least}, got {text!r}"
            )
        return value

    return convert


class Output:
    """Where JSON lines go: a file, appended to, or standard output."""

    def __init__(self, path: str, parser: Parser):
        """Opens the file at once, so that a bad name costs no benchmark."""
        self.path = None if path == "-" else Path(path)
        if self.path is not None:
            try:
                self.path.open("a").close()
            except OSError as error:
                parser.error(f"cannot write {path}: {error.strerror}")

    def write(self, record: dict[str, Any]) -> None:
        """Adds one line."""
        line = json.dumps(record)
        if self.path is None:
            print(line, flush=True)
        else:
            with self.path.open("a") as file:
                file.write(line + "\n")


def command(module: str, arguments: Sequence[str]) -> str:
    """A command line of a benchmark."""
    return shlex.join(["python", "-m", f"benchmarks.{module}", *arguments])


def shown_command(module: str, arguments: Sequence[str]) -> str:
    """The command line that made a result, without folders of the machine it was made on."""
    named = without_option(without_option(arguments, "--data-dir"), "--json")
    return command(module, [*named, "--json", "-"])


def without_option(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments without an option and its value."""
    kept, skip = [], False
    for argument in arguments:
        option, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif option == name:
            skip = not equals
        else:
            kept.append(argument)
    return kept


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPO), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def environment() -> dict[str, Any]:
    """Device, processor, versions and commit."""
    import jax  # not needed to print help or to refuse arguments

    device = jax.devices()[0]
    return {
        "device_kind": device.device_kind,
        "platform": device.platform,
        "processor": _processor(),
        "cpu_count": cpu_count(),
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def peak_rss_mb() -> float:
    """Most memory this process has held so far [MB of 10^6 bytes]."""
    try:
        # Not ru_maxrss: on Linux that starts from the peak of the process that started this one.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def peak_device_mb() -> float | None:
    """Most memory that was held on the fullest device [MB], None where devices do not say."""
    import jax

    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
    return max((peak for peak in peaks if peak is not None), default=0) / 1e6 or None


def quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(seconds) < 2:
        return seconds[0], seconds[0], seconds[0]
    q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
    return q1, median, q3


def cpu_count() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def num_cpu_devices() -> int:
    """Devices if JAX computes on the CPU, else 0."""
    import jax

    devices = jax.devices()
    return len(devices) if devices[0].platform == "cpu" else 0


def use_devices(count: int, parser: Parser | None) -> None:
    """Makes a CPU look like `count` devices, at most one per core.

    With a parser, more devices than there are end the program.
    """
    import jax

    simulated = min(count, cpu_count())
    already = max(1, jax.config.values["jax_num_cpu_devices"])  # -1 is the default, one
    if "JAX_NUM_CPU_DEVICES" not in os.environ and simulated > already:
        try:
            jax.config.update("jax_num_cpu_devices", simulated)
        except RuntimeError:
            pass  # this process has its devices already; the check below says if they are enough
    present = len(jax.devices())
    if parser is not None and count > present:
        parser.error(f"--devices {count} was asked for, but this machine has {present}")


def run_module(module: str, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Runs a benchmark in a process of its own and returns its records.

    A peak of memory can be read once per process, and a compilation is a first one only once.

    Raises:
      RuntimeError: if it failed; its messages have been printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--json", "-"],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command(module, arguments)} exited with {done.returncode}.")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

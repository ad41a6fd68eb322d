"""The folder of a run: made once, never written over, and put in order before a resume."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from fedjax_med.cli.configuration import RunConfig
from fedjax_med.cli.errors import UsageError
from fedjax_med.reporting.files import TEMPORARY, read_json, write_json, write_text


class RunFolder:
    """Paths of a run's files.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: Path):
        """Names the files; touches nothing."""
        self.path = path
        self.config = path / "config.json"
        self.preprocessing = path / "preprocessing.json"
        self.versions = path / "versions.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"
        self.report = path / "report.html"
        self.tensorboard = path / "tensorboard"

    def create(self, config: RunConfig, fingerprint: str, started: str) -> None:
        """Makes the folder of a new run and writes its configuration.

        Raises:
          UsageError: if it holds anything already.
          OSError: if it cannot be written.
        """
        self.refuse_used()
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config, fingerprint, started)

    def refuse_used(self) -> None:
        """Raises UsageError if there is anything where a new run is to be written."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--output {self.path} is a file; give a folder.")
        if self.path.is_dir() and any(
            not entry.name.startswith(TEMPORARY) for entry in self.path.iterdir()
        ):
            advice = "add --resume to go on with the run in it, or " if self.config.exists() else ""
            raise UsageError(
                f"--output {self.path} is not empty and nothing is written over; {advice}give "
                "another folder."
            )

    def write_config(self, config: RunConfig, fingerprint: str, started: str) -> None:
        """Writes `config.json`."""
        write_json(
            self.config,
            {"started": started, "data_fingerprint": fingerprint, "options": config.as_json()},
        )

    def read_config(self) -> tuple[RunConfig, str, str]:
        """Configuration, fingerprint of the data and time of the start of an existing run.

        Raises:
          UsageError: if there is no run in the folder or its configuration is damaged.
        """
        if not self.config.is_file():
            raise UsageError(
                f"--output {self.path} holds no run to resume (there is no {self.config.name})."
            )
        try:
            stored = read_json(self.config)
            config = RunConfig.from_json(stored["options"])
            return config, stored["data_fingerprint"], stored["started"]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.config} is damaged or of another version ({error}); it cannot be resumed."
            ) from error

    def trim_metrics(self, rounds: int) -> list[dict[str, Any]]:
        """Drops the lines of rounds after `rounds`, and one that was cut off.

        They will be written again: what is left is the file of a run that was never stopped.

        Returns:
          The lines that stay.
        """
        records: list[dict[str, Any]] = []
        if not self.metrics.exists():
            return records
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept: list[str] = []
        for line in lines:
            try:
                record = json.loads(line) if line.endswith("\n") else None
            except ValueError:
                record = None
            if record is None or record["round"] > rounds:
                break
            kept.append(line)
            records.append(record)
        if len(kept) < len(lines):
            write_text(self.metrics, "".join(kept))
        return records


def default_folder(dataset: str, algorithm: str) -> Path:
    """A folder under `runs/` that does not exist yet."""
    name = Path(dataset).name or "data"
    base = Path("runs") / f"{name}-{algorithm}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder

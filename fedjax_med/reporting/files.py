"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

# Leftovers of a process that was killed while writing are recognised by this.
TEMPORARY = ".partial-"


def write_text(path: Path, text: str) -> None:
    """Writes a text file; whatever happens, `path` holds the old text or all of the new.

    Raises:
      OSError: with `filename` set to `path`.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        with open(handle, "w", encoding="utf-8") as file:
            os.fchmod(handle, 0o644)  # mkstemp makes it private to the user
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes JSON; NaN is refused, because it is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
      OSError: if there is no such file.
      ValueError: if it is not JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))

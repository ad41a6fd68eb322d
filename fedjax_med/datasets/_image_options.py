"""Options of folders of images, read strictly: a typing error would change results in silence."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedjax_med.data import DataError

OPTIONS_FILE = "imaging.json"


def _options_with_defaults(
    *,
    name: Any = "",
    licence: Any = "",
    source: Any = "",
    citation: Any = "",
    labels: Any = (),
    modality: Any = None,
    window: Any = None,
    standardize: Any = True,
    spacing: Any = None,
    size: Any = None,
    validation: Any = 0.0,
    test: Any = 0.2,
    seed: Any = 0,
) -> dict[str, Any]:
    """All options, none of them checked yet."""
    return locals()


def read_options(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `load_images`: those given, then those of the file, then the defaults.

    Raises:
      DataError: names the option that does not exist or does not fit.
    """
    path = folder / OPTIONS_FILE
    stored: Any = {}
    if path.is_file():
        try:
            stored = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as JSON ({error}).") from error
        if not isinstance(stored, dict):
            raise DataError(f"{path} must hold an object, got a {type(stored).__name__}.")
    known = inspect.signature(_options_with_defaults).parameters
    for where, options in ((str(path), stored), ("load_images", given)):
        for key in options:
            if key not in known:
                raise DataError(f"{where} has no option {key!r}; options are {', '.join(known)}.")
    chosen = _options_with_defaults(**{**stored, **given})
    _check_options(chosen)
    return chosen


def _check_options(chosen: Mapping[str, Any]) -> None:
    def refuse(name: str, allowed: str) -> None:
        raise DataError(f"{name} must be {allowed}, got {chosen[name]!r}.")

    for name in ("name", "licence", "source", "citation"):
        if not isinstance(chosen[name], str):
            refuse(name, "a text")
    if not _are(chosen["labels"], str):
        refuse("labels", "a list of texts")
    if not isinstance(chosen["modality"], str | None):
        refuse("modality", "a text such as 'CT'")
    window = chosen["window"]
    if window not in (None, "file") and not (
        _are(window, int | float) and len(window) == 2 and window[1] > 0
    ):
        refuse("window", "[centre, width] with a width above 0, or 'file'")
    if not isinstance(chosen["standardize"], bool):
        refuse("standardize", "true or false")
    for name, kind, what in (
        ("spacing", int | float, "numbers [mm]"),
        ("size", int, "whole numbers"),
    ):
        value = chosen[name]
        if value is not None and not (
            _are(value, kind) and len(value) in (2, 3) and min(value) > 0
        ):
            refuse(name, f"two or three {what} above 0")
    for name in ("validation", "test"):
        if not isinstance(chosen[name], int | float):
            refuse(name, "a fraction in [0, 1)")
    if not isinstance(chosen["seed"], int):
        refuse("seed", "a whole number")


def _are(values: Any, kind: Any) -> bool:
    if isinstance(values, str) or not isinstance(values, Sequence):
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)

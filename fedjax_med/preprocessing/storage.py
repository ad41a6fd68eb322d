"""A fitted preprocessor as JSON text and as a file."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fedjax_med.data import DataError
from fedjax_med.preprocessing.harmonisation import Combat
from fedjax_med.preprocessing.imputation import Imputer
from fedjax_med.preprocessing.messages import Message

_FORMAT = "fedjax_med.preprocessor"
_VERSION = 1
_PARTS = {"combat": Combat, "imputer": Imputer}

Kind = TypeVar("Kind")


def to_json(preprocessor: Any) -> str:
    """JSON text of a preprocessor. `repr` of a float, which JSON has, is exact."""
    content = {"format": _FORMAT, "version": _VERSION, **_plain(preprocessor)}
    return json.dumps(content, ensure_ascii=False, indent=1)


def from_json(text: str, cls: type[Kind]) -> Kind:
    """Reads what `to_json` wrote.

    Raises:
      DataError: if the text is something else.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"this is no preprocessor, since it is no JSON: {error}.") from error
    found = (content.get("format"), content.get("version")) if isinstance(content, dict) else None
    if found != (_FORMAT, _VERSION):
        raise DataError(
            f"this is no preprocessor: its format and version must be {(_FORMAT, _VERSION)}, got "
            f"{found}."
        )
    try:
        return _built(cls, {k: v for k, v in content.items() if k not in ("format", "version")})
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"this preprocessor is not as it was saved ({error!r}).") from error


def save(preprocessor: Any, path: str | os.PathLike) -> None:
    """Writes a file beside `path` and renames it when the disk has it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(to_json(preprocessor))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private to the user
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: str | os.PathLike, cls: type[Kind]) -> Kind:
    """Reads what `save` wrote.

    Raises:
      DataError: if there is no such file, or it holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"there is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    try:
        return from_json(text, cls)
    except DataError as error:
        raise DataError(f"{path} cannot be used: {error}") from error


def _plain(value: Any) -> Any:
    """Arrays as `{"array": nested lists, "shape"}`, so that empty ones keep their shape."""
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        numbers = [None if np.isnan(v) else v for v in value.reshape(-1).tolist()]
        return {"array": numbers, "shape": list(value.shape)}
    if isinstance(value, Message):
        return {**value._asdict(), "shapes": _plain(list(value.shapes.items()))}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value


def _built(cls: type[Kind], content: dict[str, Any]) -> Kind:
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if set(content) != fields:
        raise ValueError(f"its keys must be {sorted(fields)}, got {sorted(content)}")
    parts = {}
    for key, value in content.items():
        if key in _PARTS and value is not None:
            parts[key] = _built(_PARTS[key], value)
        elif key == "messages":
            parts[key] = tuple(_message(message) for message in value or ())
        else:
            parts[key] = _restored(value)
    return cls(**parts)


def _message(content: dict[str, Any]) -> Message:
    shapes = {name: tuple(shape) for name, shape in content["shapes"]}
    return Message(**{**content, "shapes": shapes})


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return np.array(value["array"], np.float64).reshape(value["shape"])  # None is NaN
    if isinstance(value, list):
        return tuple(_restored(v) for v in value)
    return value

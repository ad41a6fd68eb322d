"""What the command line says when something is wrong that its user can put right."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedjax_med.data import DataError

# How libraries that write from other languages word ENOSPC.
_NO_SPACE = ("no space left on device", "enospc")


class UsageError(ValueError):
    """Something that the user can put right, most often an option; the message is a sentence."""


@contextmanager
def bad_arguments() -> Iterator[None]:
    """Inside, a ValueError is about a value that the user gave, not a fault of the program."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def explain(error: BaseException) -> str | None:
    """One sentence for an error that its user can put right; None for any other error."""
    if isinstance(error, UsageError | DataError):
        return str(error)
    if is_disk_full(error):
        where = _path_of(error)
        return (
            f"The disk is full{f' ({where})' if where else ''}: free some space, or give another "
            "folder with --output."
        )
    if isinstance(error, OSError):
        where = _path_of(error)
        reason = error.strerror or str(error)
        return f"{where} cannot be read or written: {reason}." if where else f"{reason}."
    # The engine imports JAX, so its error is known by name here.
    if type(error).__name__ == "CheckpointError":
        return str(error)
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(words in str(seen).lower() for words in _NO_SPACE):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _path_of(error: BaseException) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(name) if isinstance(name, str) else None

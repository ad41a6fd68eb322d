"""Checks of hyperparameters that may be numbers or traced arrays."""

from collections.abc import Callable
from typing import Any

from jax.core import Tracer


def require(name: str, value: Any, allowed: str, is_allowed: Callable[[Any], Any]) -> None:
    """Raises ValueError if a hyperparameter that is a plain number is out of range.

    A traced value has no number yet; `simulate` checks such values before tracing.
    `is_allowed` is phrased positively, so that NaN is refused as well.
    """
    if isinstance(value, Tracer):
        return
    if not is_allowed(value):
        raise ValueError(f"{name} must be {allowed}, got {value!r}.")

"""Numbers for people: three digits and a prefix."""

from __future__ import annotations

import math

_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
UNKNOWN = "unknown"


def with_unit(value: int | float | None, unit: str) -> str:
    """A quantity with three significant digits and an SI prefix, such as `1.23 ms`."""
    if value is None:
        return UNKNOWN
    if not value or not math.isfinite(value):
        return f"{value:g} {unit}"
    exponent = math.floor(math.log10(abs(value)) / 3) * 3
    exponent = min(max(exponent, min(_PREFIXES)), max(_PREFIXES))
    scaled = value / 10.0**exponent
    if abs(scaled) >= 999.5 and exponent + 3 in _PREFIXES:
        exponent, scaled = exponent + 3, scaled / 1000
    digits = max(0, 2 - math.floor(math.log10(abs(scaled)))) if abs(scaled) < 1000 else 0
    return f"{scaled:.{min(digits, 2)}f} {_PREFIXES[exponent]}{unit}"


def share(value: int | float | None) -> str:
    """A share in percent with at least two digits."""
    if value is None:
        return UNKNOWN
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"

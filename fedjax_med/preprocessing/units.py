"""Conversions between units that hospitals use for the same quantity.

Factors are those of the SI conversion table of the AMA Manual of Style, 11th edition, 2020
(https://doi.org/10.1093/jama/9780190246556.001.0001), rounded to four digits, and definitions.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np


class Conversion(NamedTuple):
    """`to = factor * from + offset`."""

    source: str
    target: str
    factor: float
    offset: float = 0.0


# Patterns of column names and what is measured in more than one unit there.
_BY_QUANTITY: tuple[tuple[str, tuple[Conversion, ...]], ...] = (
    ("chol|hdl|ldl", (Conversion("mmol/L", "mg/dL", 38.67),)),
    ("gluc|sugar|fbs", (Conversion("mmol/L", "mg/dL", 18.02),)),
    ("trig", (Conversion("mmol/L", "mg/dL", 88.57),)),
    ("crea", (Conversion("mg/dL", "µmol/L", 88.4),)),
    ("urea|bun", (Conversion("mmol/L", "mg/dL (urea nitrogen)", 2.801),
                  Conversion("mmol/L", "mg/dL (urea)", 6.006))),
    ("bili", (Conversion("mg/dL", "µmol/L", 17.1),)),
    ("uric|urate", (Conversion("mg/dL", "µmol/L", 59.48),)),
    ("calcium", (Conversion("mmol/L", "mg/dL", 4.008),)),
    ("h(a)?emoglobin|hgb|album", (Conversion("g/dL", "g/L", 10.0),)),
    ("weight|wt|mass", (Conversion("kg", "lb", 2.2046), Conversion("kg", "g", 1000.0))),
    ("height|length|waist", (Conversion("m", "cm", 100.0), Conversion("in", "cm", 2.54),
                             Conversion("m", "in", 39.37))),
    ("temp", (Conversion("°C", "°F", 1.8, 32.0), Conversion("°C", "K", 1.0, 273.15))),
    ("press|bp|map", (Conversion("kPa", "mmHg", 7.5006),)),
    ("age|time|duration|days|months|years", (Conversion("years", "months", 12.0),
                                             Conversion("months", "days", 30.44),
                                             Conversion("years", "days", 365.25))),
    ("ratio|fraction|percent|sat", (Conversion("fraction", "%", 100.0),)),
)  # fmt: skip
_ANY = (Conversion("unit", "1/100 unit", 100.0), Conversion("unit", "1/1000 unit", 1000.0))

_TOLERANCE = 0.2  # of logarithms of medians and of interquartile ranges


class Suspicion(NamedTuple):
    """A hospital that seems to use another unit than the others.

    Attributes:
      seems: the unit that it seems to use.
      others: the unit of the others.
      factor: what to multiply its values with, before `offset` is added.
      offset: see above.
    """

    seems: str
    others: str
    factor: float
    offset: float


def suspected_unit(
    column: str, own: tuple[float, float], others: tuple[float, float], count: int
) -> Suspicion | None:
    """Whether the values of a hospital look like those of the others in another unit.

    They do if, after a conversion that is known for such a column (by its name), the median fits
    within a factor of exp(0.2) and the interquartile range within exp(0.6), while as it is the median
    is more than four of its standard errors (0.93 ranges / sqrt(count), as for normal values) away.
    For columns of other names, factors of 100 and 1000 are tried.

    Args:
      column: its name.
      own: median and interquartile range of the hospital.
      others: typical ones of the other hospitals.
      count: values of the hospital.
    """
    (median, width), (middle, other_width) = own, others
    if not (median > 0 and middle > 0 and width > 0 and other_width > 0):  # NaN as well
        return None
    if abs(median - middle) < 4 * 0.93 * max(width, other_width) / np.sqrt(count):
        return None
    best, fit = None, _TOLERANCE
    for source, target, factor, offset in conversions(column):
        for there, here, a, b in (
            (target, source, factor, offset),
            (source, target, 1 / factor, -offset / factor),
        ):
            converted = a * median + b
            if converted <= 0:
                continue
            off = abs(np.log(converted / middle))
            if off < fit and abs(np.log(a * width / other_width)) < 3 * _TOLERANCE:
                best, fit = Suspicion(here, there, a, b), off
    return best


def conversions(column: str) -> tuple[Conversion, ...]:
    """The conversions known for a column of this name."""
    words = column.casefold()
    for pattern, known in _BY_QUANTITY:
        if re.search(rf"(^|[^a-z])({pattern})", words):
            return known
    return _ANY

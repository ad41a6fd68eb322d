"""Columns and categories that hospitals agree on, whose tables differ in columns and spelling.

What leaves a hospital: the names of its columns, and of each column of text its categories and how many
rows have them. The server needs each hospital's own list once, to know who has which column; the counts
are only used summed. A category that a single patient has leaves its hospital as text: have hospitals
recode what identifies somebody before.

Works on plain arrays; JAX is not used. `alignment` makes a federated dataset of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError
from fedjax_med.datasets._schema import ALWAYS_MISSING, as_number, as_text

Table = Mapping[str, np.ndarray]

OTHER = "other"


class SiteColumn(NamedTuple):
    """What a hospital tells of one column.

    Attributes:
      spelling: of the name of the column, there.
      numeric: whether all its values are numbers.
      counts: rows by category as written there; empty where `numeric`.
      present: rows that have a value.
    """

    spelling: str
    numeric: bool
    counts: dict[str, int]
    present: int


class VocabularyColumn(NamedTuple):
    """A column that all hospitals agree on.

    Attributes:
      name: its most frequent spelling.
      categories: count over all hospitals by category, the rare ones together as "other", in
        alphabetical order, "other" last; empty for a column of numbers.
      known_as: from the key of a spelling (`spelling_key`) to its category.
      absent_at: hospitals without the column or without a value in it.
    """

    name: str
    categories: dict[str, int]
    known_as: dict[str, str]
    absent_at: tuple[str, ...]


class Vocabulary(NamedTuple):
    """The columns of all hospitals together.

    Attributes:
      columns: by the key of the name, in order of first appearance.
      synonyms: see `vocabulary`.
    """

    columns: dict[str, VocabularyColumn]
    synonyms: dict[str, str]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns of `x`: `column`, or `column=category` for each of its categories."""
        names: list[str] = []
        for column in self.columns.values():
            of_block = [f"{column.name}={category}" for category in column.categories]
            names += of_block or [column.name]
        return tuple(names)


def spelling_key(text: str) -> str:
    """What different spellings of a word have in common: no case, single spaces, - and _ are spaces."""
    return " ".join(text.replace("_", " ").replace("-", " ").casefold().split())


def site_columns(
    table: Table, missing: Sequence[str] = (), as_categories: Sequence[str] = ()
) -> dict[str, SiteColumn]:
    """What one hospital tells of its table, by the key of the column's name.

    Args:
      table: arrays `[rows]` of numbers, booleans, text or objects, by column.
      missing: texts that mean a missing value, besides the empty text, NA, NaN, NULL and None.
      as_categories: keys of columns whose numbers are codes, because another hospital has text there.

    Raises:
      DataError: if two names differ in spelling only, or columns differ in length.
    """
    found: dict[str, SiteColumn] = {}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of a table must be of equal length, got {lengths}.")
    for name, values in table.items():
        key = spelling_key(name)
        if key in found:
            raise DataError(
                f"columns {found[key].spelling!r} and {name!r} differ in spelling only; rename one."
            )
        tokens = [t for t in tokens_of(values, missing) if t is not None]
        numeric = key not in as_categories and all(as_number(t) is not None for t in tokens)
        counts = {} if numeric else dict(Counter(tokens))
        found[key] = SiteColumn(name, numeric, counts, len(tokens))
    return found


def vocabulary(
    sites: Mapping[str, dict[str, SiteColumn]],
    *,
    min_count: int = 5,
    synonyms: Mapping[str, str] | None = None,
    exclude: Sequence[str] = (),
) -> Vocabulary:
    """Agrees on columns and categories, from what each hospital tells.

    Spellings that differ in case, spaces, hyphens and underscores are one category, called as most
    rows have it; whole words that mean the same are `synonyms`. A column is one of numbers if it is so
    at every hospital that has a value. Categories of fewer than `min_count` rows in all hospitals
    together become "other", so none of them is told with its count; a rare one among the categories of
    code lists that are public anyway may be kept with `min_count=1`.

    Args:
      sites: from the name of a hospital to its `site_columns`.
      min_count: see above.
      synonyms: from a spelling to the one to be used instead, of columns and of categories.
      exclude: columns to leave out, such as outcomes.

    Raises:
      DataError: if there is no hospital or no column.
    """
    same = {spelling_key(old): new for old, new in (synonyms or {}).items()}
    left_out = {spelling_key(name) for name in exclude}
    merged: dict[str, dict[str, SiteColumn]] = {}
    for site, columns in sites.items():
        for key, column in columns.items():
            agreed = spelling_key(same.get(key, key))
            if agreed in left_out or key in left_out:
                continue
            by_site = merged.setdefault(agreed, {})
            if site in by_site:
                raise DataError(
                    f"hospital {site!r} has two columns that are one: {by_site[site].spelling!r} and "
                    f"{column.spelling!r}; rename one."
                )
            by_site[site] = column
    if not merged:
        raise DataError("the tables must have at least one column, got none.")
    agreed_columns = {}
    for key, by_site in merged.items():
        spellings: Counter[str] = Counter()
        for column in by_site.values():
            spellings[same.get(spelling_key(column.spelling), column.spelling)] += 1
        valued = [column for column in by_site.values() if column.present]
        categories, known_as = {}, {}
        if not all(column.numeric for column in valued):
            categories, known_as = _categories(valued, same, min_count)
        absent = tuple(s for s in sites if s not in by_site or not by_site[s].present)
        agreed_columns[key] = VocabularyColumn(_most(spellings), categories, known_as, absent)
    return Vocabulary(agreed_columns, same)


def tokens_of(values: np.ndarray, missing: Sequence[str]) -> list[str | None]:
    """The values as text, None where missing."""
    nothing = {*ALWAYS_MISSING, *missing}
    values = np.asarray(values)
    tokens = (as_text(v) for v in (values + 0 if values.dtype == bool else values).tolist())
    return [None if token in nothing or not token.strip() else token.strip() for token in tokens]


def _most(spellings: Counter[str]) -> str:
    """The most frequent, of several the first in the alphabet."""
    return min(spellings, key=lambda text: (-spellings[text], text))


def _categories(
    columns: Sequence[SiteColumn], same: Mapping[str, str], min_count: int
) -> tuple[dict[str, int], dict[str, str]]:
    by_key: dict[str, Counter[str]] = {}
    keys: dict[str, str] = {}
    for column in columns:
        for token, count in column.counts.items():
            spelled = same.get(spelling_key(token), token)
            keys[spelling_key(token)] = spelling_key(spelled)
            by_key.setdefault(spelling_key(spelled), Counter())[spelled] += count
    called, totals = {}, Counter[str]()
    for key, spellings in by_key.items():
        called[key] = _most(spellings) if spellings.total() >= min_count else OTHER
        called[key] = OTHER if key == OTHER else called[key]
        totals[called[key]] += spellings.total()
    ordered = sorted(totals, key=lambda category: (category == OTHER, category))
    known_as = {key: called[agreed] for key, agreed in keys.items()}
    return {category: totals[category] for category in ordered}, known_as

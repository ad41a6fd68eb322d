"""Tables of hospitals that differ in columns and spelling, as one federated dataset.

What leaves a hospital is what `vocabularies` says; rows are encoded where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.datasets._schema import as_number
from fedjax_med.preprocessing.vocabularies import (
    OTHER,
    Table,
    Vocabulary,
    VocabularyColumn,
    site_columns,
    spelling_key,
    tokens_of,
    vocabulary,
)


def align(
    sites: Mapping[str, Table],
    *,
    targets: Mapping[str, str] | None = None,
    agreed: Vocabulary | None = None,
    min_count: int = 5,
    synonyms: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    name: str = "dataset",
) -> tuple[FederatedDataset, Vocabulary]:
    """Makes a federated dataset of tables with different columns and spellings.

    `x` is float32 `[N, features]`, **NaN where a value is missing**, which it is in all rows of a
    hospital that does not have the column. Categories are blocks of indicators `column=category`, NaN
    where missing. A category that the vocabulary does not have is "other", or missing if there is no
    "other".

    Args:
      sites: from the name of a hospital to its table.
      targets: from a key of the examples ("y", "time", "event") to the column it is in; whole numbers
        become int32, others float32. Targets must not be missing, nor text.
      agreed: a vocabulary that was agreed on before, for new hospitals; made here if None.
      min_count: of `vocabulary`.
      synonyms: of `vocabulary`.
      missing: of `site_columns`.
      name: of the dataset.

    Returns:
      The dataset, all rows of it for training, and the vocabulary.

    Raises:
      DataError: if tables or targets do not fit.
    """
    if not sites:
        raise DataError("sites is empty; at least one hospital is needed.")
    targets = dict(targets or {})
    if agreed is None:
        told = {site: site_columns(table, missing) for site, table in sites.items()}
        # Asked a second time where numbers of one hospital are text of another: codes then.
        same = {spelling_key(old): spelling_key(new) for old, new in (synonyms or {}).items()}
        text = {
            same.get(k, k) for columns in told.values() for k, c in columns.items() if not c.numeric
        }
        codes = [k for columns in told.values() for k in columns if same.get(k, k) in text]
        told = {site: site_columns(table, missing, codes) for site, table in sites.items()}
        agreed = vocabulary(
            told, min_count=min_count, synonyms=synonyms, exclude=tuple(targets.values())
        )
    parts: dict[str, list[np.ndarray]] = {"x": [], **{key: [] for key in targets}}
    sizes = []
    for site, table in sites.items():
        sizes.append(len(next(iter(table.values()))) if table else 0)
        here = {}
        for column in table:
            key = spelling_key(column)
            here[spelling_key(agreed.synonyms.get(key, key))] = column
        blocks = [
            _encoded(table.get(here.get(key, "")), agreed, column, sizes[-1], missing)
            for key, column in agreed.columns.items()
        ]
        parts["x"].append(np.concatenate(blocks, axis=1))
        for key, column in targets.items():
            parts[key].append(_target(table, here, site, column))
    whole = {key: all((p == np.floor(p)).all() for p in parts[key]) for key in targets}
    integers = {key for key in targets if whole[key] and key != "time"}
    examples = {
        key: np.concatenate(part).astype(np.int32 if key in integers else np.float32)
        for key, part in parts.items()
    }
    arrays = ClientArrays(examples, np.array(sizes, np.int64))
    names = agreed.feature_names
    return FederatedDataset(name, tuple(sites), arrays, feature_names=names), agreed


def _encoded(
    values: np.ndarray | None,
    agreed: Vocabulary,
    column: VocabularyColumn,
    rows: int,
    missing: Sequence[str],
) -> np.ndarray:
    """float64 `[rows, 1]`, or `[rows, categories]`."""
    width = max(1, len(column.categories))
    if values is None:
        return np.full((rows, width), np.nan)
    tokens = tokens_of(values, missing)
    if not column.categories:
        wrong = next((t for t in tokens if t is not None and as_number(t) is None), None)
        if wrong is not None:
            raise DataError(f"column {column.name!r} must hold numbers, got {wrong!r}.")
        return np.array([np.nan if t is None else float(t) for t in tokens])[:, None]
    place = {category: i for i, category in enumerate(column.categories)}
    out = np.full((rows, width), np.nan)
    for row, token in enumerate(tokens):
        if token is None:
            continue
        key = spelling_key(token)
        category = column.known_as.get(key) or column.known_as.get(
            spelling_key(agreed.synonyms.get(key, key)), OTHER
        )
        if category in place:
            out[row] = 0
            out[row, place[category]] = 1
    return out


def _target(table: Table, here: Mapping[str, str], site: str, column: str) -> np.ndarray:
    found = here.get(spelling_key(column))
    if found is None:
        raise DataError(f"hospital {site!r} has no column {column!r}, which is a target.")
    tokens = tokens_of(table[found], ())
    numbers = [None if t is None else as_number(t) for t in tokens]
    for row, (token, number) in enumerate(zip(tokens, numbers, strict=True)):
        if number is None:
            raise DataError(
                f"target {column!r} of hospital {site!r} must be a number in every row, got "
                f"{token!r} in row {row}."
            )
    return np.array(numbers, np.float64)

"""GDSC: how sensitive cancer cell lines are to drugs; a hospital has the lines of one cancer type.

A matrix of cell lines by drugs with holes, of which each example is a row: a patient of whom some
responses are known and others are asked for.

References:
  Yang et al., "Genomics of Drug Sensitivity in Cancer (GDSC)", Nucleic Acids Research 41, 2013.
  https://doi.org/10.1093/nar/gks1111
"""

import csv
import os
from pathlib import Path

import numpy as np

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.datasets._files import Remote, locate, open_text

LICENCE = "freely available without restriction (Yang et al. 2013); filtered table: Apache-2.0"
SOURCE = "GDSC release 5, as filtered in the repository ThomasBrouwer/BNMTF"
CITATION = (
    "Yang W, Soares J, Greninger P, et al. Genomics of Drug Sensitivity in Cancer (GDSC): a "
    "resource for therapeutic biomarker discovery in cancer cells. Nucleic Acids Research "
    "2013;41(D1):D955-D961. doi:10.1093/nar/gks1111."
)

_FILES = {
    "ic50_622x138.csv": Remote(
        "https://raw.githubusercontent.com/ThomasBrouwer/BNMTF/"
        "34df0c3cebc5e67a5e39762b9305b75d73a2a0e0/data_drug_sensitivity/gdsc/"
        "ic50_excl_empty_filtered_cell_lines_drugs.txt",
        "83bc11114068d4cdde0cf93c3f564ac059c8541b0694a2a9a5d41718888d91b3",
    )
}
_KEYS = ("Cell Line", "Cancer Type", "Tissue")


def gdsc_ic50(
    *,
    data_dir: str | os.PathLike | None = None,
    held_out: str = "responses",
    test: float = 0.2,
    known: int = 20,
    seed: int = 0,
) -> FederatedDataset:
    """Loads the responses of 622 cell lines of 13 cancer types to 138 drugs.

    `x` is float32 `[N, 138]`: natural logarithm of IC50 [log micromolar], low where a drug works at
    a low dose; **NaN where it is not measured**, or not known to whoever predicts. What is to be
    predicted is `y`, float32 `[N, 138]` in the same unit, where `measured`, bool `[N, 138]`, is
    True; elsewhere `y` is 0 and means nothing. In training rows both are the same responses; in test
    rows `y` holds responses that are not in `x`. 69,564 of the 85,836 responses are measured.

    Clients are the cancer types in alphabetical order, 9 to 123 cell lines each; features are the
    drugs.

    Args:
      data_dir: folder with a local copy of `ic50_622x138.csv`; see `FEDJAX_MED_DATA` as well.
        Without one it is downloaded once (0.7 MB).
      held_out: "responses" moves a share of every cell line's responses to a test row of the same
        line; "cell lines" moves a share of every client's lines, of which `known` random responses
        are in `x`: new patients.
      test: the share that moves.
      known: responses that are known of a new cell line; the others are asked for.
      seed: of what moves. Each cell line draws for itself.

    Raises:
      DataError: if the file is missing or damaged, or an option is not allowed.
    """
    if held_out not in ("responses", "cell lines"):
        raise DataError(f"held_out must be 'responses' or 'cell lines', got {held_out!r}.")
    if not 0 < test < 1:
        raise DataError(f"test must be between 0 and 1, got {test!r}.")
    if known < 0:
        raise DataError(f"known must not be negative, got {known!r}.")
    rows = _read(locate("gdsc-ic50", _FILES, data_dir)["ic50_622x138.csv"])
    drugs = tuple(name for name in rows[0] if name not in _KEYS)
    values = np.array([[float(row[d] or "nan") for d in drugs] for row in rows], np.float32)
    types = np.array([row["Cancer Type"] for row in rows])
    order = np.argsort(types, kind="stable")
    names, sizes = np.unique(types, return_counts=True)
    whole = FederatedDataset(
        "gdsc-ic50",
        tuple(str(name) for name in names),
        ClientArrays(responses(values[order], values[order]), sizes),
        feature_names=drugs,
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )
    divide = patients_held_out if held_out == "cell lines" else responses_held_out
    more = {"known": known} if held_out == "cell lines" else {}
    return divide(whole, test=test, seed=seed, **more)


def responses_held_out(whole: FederatedDataset, *, test: float, seed: int) -> FederatedDataset:
    """A share of every row's responses moved to a test row of the same patient.

    Args:
      whole: training rows with everything that was measured.
      test: the share.
      seed: of what moves.
    """
    x, sizes = whole.train.examples["x"], whole.train.sizes
    drawn = np.random.default_rng([seed, 0]).random(x.shape)
    moves = (drawn < test) & ~np.isnan(x)
    left = np.where(moves, np.float32(np.nan), x)
    return whole.replace(
        train=ClientArrays(responses(left, left), sizes),
        test=ClientArrays(responses(left, np.where(moves, x, np.float32(np.nan))), sizes),
    )


def patients_held_out(
    whole: FederatedDataset, *, test: float, known: int, seed: int
) -> FederatedDataset:
    """A share of every client's patients moved to test rows, of whom some responses are known.

    Args:
      whole: training rows with everything that was measured.
      test: the share.
      known: responses that are known of each.
      seed: of who moves and what is known.
    """
    split = whole.split(test=test, seed=seed, stratify=None)
    assert split.test is not None
    asked = ask_for_the_others(split.test.examples["x"], known, seed)
    return split.replace(test=ClientArrays(asked, split.test.sizes))


def whole_matrix(dataset: FederatedDataset) -> FederatedDataset:
    """Training rows with everything that was measured, of a dataset divided by either function."""
    train = dataset.train
    test = dataset.test
    if test is None:
        return dataset
    x, asked = (
        np.where(arrays.examples["measured"], arrays.examples["y"], arrays.examples["x"])
        for arrays in (train, test)
    )
    if np.array_equal(train.sizes, test.sizes) and np.array_equal(
        train.examples["x"], test.examples["x"], equal_nan=True
    ):
        rows = np.where(np.isnan(asked), x, asked)
        return dataset.replace(train=ClientArrays(responses(rows, rows), train.sizes), test=None)
    rows = np.concatenate([x, asked])
    client = np.concatenate([np.repeat(np.arange(a.num_clients), a.sizes) for a in (train, test)])
    rows = rows[np.argsort(client, kind="stable")]
    sizes = train.sizes + test.sizes
    return dataset.replace(train=ClientArrays(responses(rows, rows), sizes), test=None)


def responses(known: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Examples from what is known and what is asked for, float32 `[N, drugs]` with NaN for nothing."""
    measured = ~np.isnan(asked)
    return {
        "x": known.astype(np.float32),
        "y": np.where(measured, asked, 0).astype(np.float32),
        "measured": measured,
    }


def ask_for_the_others(values: np.ndarray, known: int, seed: int) -> dict[str, np.ndarray]:
    """Examples of new patients: `known` random responses of each are known, the others asked for.

    Args:
      values: float32 `[N, drugs]`, NaN where not measured.
      known: how many are known; all, where fewer are measured.
      seed: of the draw.
    """
    key = np.random.default_rng([seed, 1]).random(values.shape)
    key[np.isnan(values)] = 2  # behind all that are measured
    place = np.argsort(np.argsort(key, axis=1), axis=1)
    kept = (place < known) & ~np.isnan(values)
    nothing = np.float32(np.nan)
    return responses(np.where(kept, values, nothing), np.where(kept, nothing, values))


def _read(path: Path) -> list[dict[str, str]]:
    with open_text(path) as file:
        return list(csv.DictReader(file))

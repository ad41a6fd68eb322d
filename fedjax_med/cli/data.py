"""`fedjax-med data`: what there is, and whether it is sound. Needs no JAX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fedjax_med import datasets
from fedjax_med.cli.errors import UsageError
from fedjax_med.data import FederatedDataset, check
from fedjax_med.datasets.weekly import HORIZONS

_MAX_ROWS = 20
# Of test examples, where a dataset does not say which ones they are.
_TEST_SHARE = 0.2
# Options of datasets that are learned from: natural units, and all weeks ahead at once.
_RAW = {"standardize": None, "horizons": HORIZONS}
# Of files that describe tables.
_SCHEMA_SUFFIXES = (".toml", ".json")


def list_command() -> int:
    """Prints all datasets."""
    console = Console()
    for name, info in datasets.DATASETS.items():
        console.print(f"[bold]{name}[/bold]  {info.title}", highlight=False)
        console.print(f"  {info.description}", highlight=False)
        size = f"{info.clients:,} clients, {info.examples:,} examples"
        licence = f"; licence {info.licence}" if info.licence else ""
        console.print(f"  {size}; {info.access}{licence}\n", highlight=False)
    return 0


def check_command(name: str, data_dir: Path | None) -> int:
    """Loads and checks a dataset, and prints what is in it."""
    dataset = load(name, data_dir)
    check(dataset, allow_missing=True)  # runs impute, or refuse by themselves
    console = Console()
    table = Table(title=f"{dataset.name}: patients per hospital", title_justify="left")
    table.add_column("hospital")
    for split in dataset.splits():
        table.add_column(split, justify="right")
    rows = dataset.summary()
    counted = dataset.label_names if "label_counts" in rows[0] else ()  # not of masks, for example
    for label in counted:
        table.add_column(label, justify="right")
    events = _events(dataset)
    if events is not None:
        table.add_column("events", justify="right")
    for i, row in enumerate(rows[:_MAX_ROWS]):
        counts = row.get("label_counts", {})
        table.add_row(
            row["name"],
            *(f"{row[split]:,}" for split in dataset.splits()),
            *(f"{counts.get(label, 0):,}" for label in counted),
            *(() if events is None else (f"{events[i]:,}",)),
        )
    console.print(table)
    if len(rows) > _MAX_ROWS:
        console.print(f"... and {len(rows) - _MAX_ROWS:,} more")
    examples = sum(arrays.num_examples for arrays in dataset.splits().values())
    console.print(
        f"{dataset.name} is sound: {dataset.num_clients:,} clients, {examples:,} examples, "
        f"{_missing(dataset)}fingerprint {dataset.fingerprint()[:12]}.",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _events(dataset: FederatedDataset) -> list[int] | None:
    """How many events each client has seen, of survival data."""
    if not _is_survival(dataset):
        return None
    splits = dataset.splits().values()
    return [
        sum(int(np.sum(arrays.client(i)["event"])) for arrays in splits)
        for i in range(dataset.num_clients)
    ]


def _is_survival(dataset: FederatedDataset) -> bool:
    examples = dataset.train.examples
    return isinstance(examples, dict) and "event" in examples and "y" not in examples


def _missing(dataset: FederatedDataset) -> str:
    examples = [arrays.examples for arrays in dataset.splits().values()]
    x = [e["x"] for e in examples if isinstance(e, dict) and isinstance(e.get("x"), np.ndarray)]
    missing = sum(int(np.isnan(part).sum()) for part in x if part.dtype.kind == "f")
    share = missing / max(1, sum(part.size for part in x))
    return f"{share:.1%} of the values of x missing, " if missing else ""


def load(
    name: str, data_dir: Path | None, *, validation: bool = False, raw: bool = False
) -> FederatedDataset:
    """A dataset by name or from a folder, always with test examples.

    Args:
      name: of a dataset, a folder that `FederatedDataset.save` wrote, the schema file of one's own
        tables, or a folder of hospitals' images.
      data_dir: folder with local copies of the files.
      validation: whether validation examples are needed.
      raw: whether features are to be in natural units, so that all preprocessing can be fitted to
        training patients alone.

    Raises:
      DataError: if it cannot be had.
    """
    is_schema = Path(name).suffix in _SCHEMA_SUFFIXES
    if name in datasets.DATASETS or not (is_schema or Path(name).is_dir()):
        wanted = _RAW if raw else {}
        options = {key: wanted[key] for key in wanted if datasets.has_option(name, key)}
        dataset = datasets.load(name, data_dir, **options)
    elif data_dir is not None:
        what = "schema" if is_schema else "folder"
        raise UsageError(f"--data-dir {data_dir} has no effect with the {what} {name}.")
    elif is_schema:
        dataset = datasets.load_tables(name, validation=_TEST_SHARE if validation else 0.0)
    elif datasets.is_image_folder(name):
        dataset = datasets.load_images(name, **({"validation": _TEST_SHARE} if validation else {}))
    else:
        dataset = FederatedDataset.load(name, verify=True)
    missing = {}
    if dataset.test is None:
        missing["test"] = _TEST_SHARE
    if validation and dataset.validation is None:
        missing["validation"] = _TEST_SHARE
    if not missing:
        return dataset
    return dataset.split(**missing, stratify=_classes_of(dataset))


def _classes_of(dataset: FederatedDataset) -> str | None:
    """The leaf whose classes every part is to hold in proportion; None of numbers and many labels."""
    if _is_survival(dataset):
        return "event"
    examples = dataset.train.examples
    y = examples.get("y") if isinstance(examples, dict) else None
    is_classes = isinstance(y, np.ndarray) and y.ndim == 1 and y.dtype.kind in "biu"
    return "y" if is_classes else None

"""`fedjax-med data`: what there is, and whether it is sound. Needs no JAX."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedjax_med import datasets
from fedjax_med.cli.errors import UsageError
from fedjax_med.data import FederatedDataset, check

_MAX_ROWS = 20
# Of test examples, where a dataset does not say which ones they are.
_TEST_SHARE = 0.2


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
    check(dataset)
    console = Console()
    table = Table(title=f"{dataset.name}: patients per hospital", title_justify="left")
    table.add_column("hospital")
    for split in dataset.splits():
        table.add_column(split, justify="right")
    for label in dataset.label_names:
        table.add_column(label, justify="right")
    rows = dataset.summary()
    for row in rows[:_MAX_ROWS]:
        counts = row.get("label_counts", {})
        table.add_row(
            row["name"],
            *(f"{row[split]:,}" for split in dataset.splits()),
            *(f"{counts.get(label, 0):,}" for label in dataset.label_names),
        )
    console.print(table)
    if len(rows) > _MAX_ROWS:
        console.print(f"... and {len(rows) - _MAX_ROWS:,} more")
    examples = sum(arrays.num_examples for arrays in dataset.splits().values())
    console.print(
        f"{dataset.name} is sound: {dataset.num_clients:,} clients, {examples:,} examples, "
        f"fingerprint {dataset.fingerprint()[:12]}.",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def load(name: str, data_dir: Path | None, *, validation: bool = False) -> FederatedDataset:
    """A dataset by name or from a folder, always with test examples.

    Args:
      name: of a dataset, or a folder that `FederatedDataset.save` wrote.
      data_dir: folder with local copies of the files.
      validation: whether validation examples are needed.

    Raises:
      DataError: if it cannot be had.
    """
    if name in datasets.DATASETS or not Path(name).is_dir():
        dataset = datasets.load(name, data_dir)
    elif data_dir is not None:
        raise UsageError(f"--data-dir {data_dir} has no effect with the folder {name}.")
    else:
        dataset = FederatedDataset.load(name, verify=True)
    missing = {}
    if dataset.test is None:
        missing["test"] = _TEST_SHARE
    if validation and dataset.validation is None:
        missing["validation"] = _TEST_SHARE
    return dataset.split(**missing) if missing else dataset

"""Genotypes in PLINK 1 binary files: a reader, and a writer for what was read.

Three files of one name: `.bed` has the genotypes, `.bim` a line per SNP and `.fam` a line per
person. A SNP is a run of whole bytes with four people each, the first in the lowest two bits:

    00  two copies of allele 1      10  one copy      11  none      01  missing

References:
  Purcell et al., "PLINK: a tool set for whole-genome association and population-based linkage
  analyses", American Journal of Human Genetics 81, 2007. https://doi.org/10.1086/519795
  The format: https://www.cog-genomics.org/plink/1.9/formats#bed
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedjax_med.data import DataError

_MAGIC = b"\x6c\x1b"
_SNP_MAJOR = 1
# Copies of allele 1 by the two bits of a genotype, and back.
_DOSAGE = np.array([2, -1, 1, 0], np.int8)
_BITS = {dosage: bits for bits, dosage in enumerate(_DOSAGE.tolist())}
# Four dosages for every byte, the person in the lowest bits first.
_OF_BYTE = _DOSAGE[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]


class Snps(NamedTuple):
    """What a `.bim` file says of SNPs, in its order.

    Attributes:
      name: rs ids.
      chromosome: as written, "1" to "22", "X" and others.
      position: int64 `[snps]`, base pairs on the chromosome.
      allele: whose copies are counted (allele 1).
      other: the other allele (allele 2).
    """

    name: tuple[str, ...]
    chromosome: tuple[str, ...]
    position: np.ndarray
    allele: tuple[str, ...]
    other: tuple[str, ...]


class People(NamedTuple):
    """What a `.fam` file says of people, in its order.

    Attributes:
      family: family ids.
      name: ids within the family.
      sex: int32 `[people]`, 1 male, 2 female, 0 unknown.
    """

    family: tuple[str, ...]
    name: tuple[str, ...]
    sex: np.ndarray


class Plink(NamedTuple):
    """Genotypes with their SNPs and people.

    Attributes:
      dosage: int8 `[people, snps]`, copies of allele 1: 0, 1 or 2, and -1 where missing.
      snps: of the columns.
      people: of the rows.
    """

    dosage: np.ndarray
    snps: Snps
    people: People


def read_plink(
    bed: str | os.PathLike,
    bim: str | os.PathLike | None = None,
    fam: str | os.PathLike | None = None,
) -> Plink:
    """Reads genotypes.

    Args:
      bed: path of the `.bed` file.
      bim: of the SNPs; beside `bed` with the ending `.bim` if None.
      fam: of the people; beside `bed` with the ending `.fam` if None.

    Raises:
      DataError: if a file is missing, no PLINK 1 file or in individual-major order, if the
        genotypes are not those of as many people and SNPs, if an id occurs twice, or a line
        cannot be read.
    """
    path = Path(bed)
    snps = read_bim(path.with_suffix(".bim") if bim is None else bim)
    people = read_fam(path.with_suffix(".fam") if fam is None else fam)
    content = _bytes_of(path)
    if content[:2] != _MAGIC:
        raise DataError(
            f"{path} begins with the bytes {content[:2].hex(' ') or '(none)'}; a PLINK 1 .bed file "
            "begins with 6c 1b."
        )
    if content[2:3] != bytes([_SNP_MAJOR]):
        raise DataError(
            f"{path} has the mode {content[2:3].hex() or '(none)'}; only 01, SNP after SNP, can be "
            "read, so write it again with `plink --make-bed`."
        )
    num_people, num_snps = len(people.name), len(snps.name)
    stride = -(-num_people // 4)
    if len(content) != 3 + stride * num_snps:
        raise DataError(
            f"{path} has {len(content)} bytes, but {num_people} people and {num_snps} SNPs need "
            f"{3 + stride * num_snps}; the three files must belong together."
        )
    packed = np.frombuffer(content, np.uint8, offset=3).reshape(num_snps, stride)
    dosage = np.empty((num_people, num_snps), np.int8)
    for four in range(stride):  # a copy of all at once would hold the transpose as well
        rows = dosage[4 * four : 4 * four + 4]
        rows[:] = _OF_BYTE[packed[:, four]].T[: len(rows)]
    return Plink(dosage, snps, people)


def write_plink(bed: str | os.PathLike, genotypes: Plink) -> None:
    """Writes `.bed`, `.bim` and `.fam` beside each other, in place of what is there.

    Raises:
      DataError: if a dosage is not -1, 0, 1 or 2, or the shapes do not fit.
    """
    dosage, snps, people = genotypes
    if dosage.shape != (len(people.name), len(snps.name)):
        raise DataError(
            f"dosage must have shape {[len(people.name), len(snps.name)]}, people and SNPs, got "
            f"{list(dosage.shape)}."
        )
    wrong = dosage[~np.isin(dosage, list(_BITS))]
    if wrong.size:
        raise DataError(f"dosages must be -1 (missing), 0, 1 or 2, got {wrong[0]}.")
    bits = np.zeros((4 * -(-dosage.shape[0] // 4), dosage.shape[1]), np.uint8)
    for value, code in _BITS.items():
        bits[: dosage.shape[0]][dosage == value] = code
    four = bits.reshape(-1, 4, dosage.shape[1]) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    packed = np.bitwise_or.reduce(four, axis=1)
    path = Path(bed)
    path.write_bytes(_MAGIC + bytes([_SNP_MAJOR]) + packed.T.tobytes())
    lines = zip(
        snps.chromosome, snps.name, snps.position.tolist(), snps.allele, snps.other, strict=True
    )
    path.with_suffix(".bim").write_text(
        "".join(f"{c}\t{name}\t0\t{at}\t{a}\t{b}\n" for c, name, at, a, b in lines)
    )
    rows = zip(people.family, people.name, people.sex.tolist(), strict=True)
    path.with_suffix(".fam").write_text("".join(f"{f} {name} 0 0 {s} -9\n" for f, name, s in rows))


def read_bim(path: str | os.PathLike) -> Snps:
    """Reads a line per SNP: chromosome, id, centimorgans, position, allele 1, allele 2.

    Raises:
      DataError: if the file or a line cannot be read, or an id occurs twice.
    """
    rows = _lines(Path(path), "chromosome, id, centimorgans, position and two alleles")
    chromosome, name, _, _, allele, other = zip(*rows, strict=True)
    _must_differ(Path(path), "SNP", name)
    at = [_whole(Path(path), number, row[3], "position") for number, row in enumerate(rows, 1)]
    return Snps(name, chromosome, np.array(at, np.int64), allele, other)


def read_fam(path: str | os.PathLike) -> People:
    """Reads a line per person: family, id, father, mother, sex, phenotype.

    Raises:
      DataError: if the file or a line cannot be read, or an id occurs twice in a family.
    """
    rows = _lines(Path(path), "family, id, father, mother, sex and phenotype")
    _must_differ(Path(path), "person", [f"{row[0]} {row[1]}" for row in rows])
    sex = [_whole(Path(path), number, row[4], "sex") for number, row in enumerate(rows, 1)]
    # Whatever is neither 1 nor 2 is unknown, as PLINK takes it.
    known = np.array([value if value in (1, 2) else 0 for value in sex], np.int32)
    return People(tuple(row[0] for row in rows), tuple(row[1] for row in rows), known)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error


def _lines(path: Path, fields: str) -> list[list[str]]:
    try:
        rows = [line.split() for line in _bytes_of(path).decode().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text ({error.reason} at byte {error.start}).") from error
    if not rows:
        raise DataError(f"{path} is empty; it must have a line with {fields}.")
    for number, row in enumerate(rows, 1):
        if len(row) != 6:
            raise DataError(
                f"{path}, line {number}, has {len(row)} fields; it must have six: {fields}."
            )
    return rows


def _whole(path: Path, number: int, text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(
            f"{path}, line {number}: {what} must be a whole number, got {text!r}."
        ) from None


def _must_differ(path: Path, what: str, names: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name in seen:
            raise DataError(
                f"{path}, line {number}: the {what} {name!r} is in line {seen[name]} already; ids "
                "must differ."
            )
        seen[name] = number

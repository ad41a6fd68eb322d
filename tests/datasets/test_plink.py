import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med import datasets
from fedjax_med.data import DataError
from fedjax_med.datasets.plink import People, Plink, Snps, read_plink, write_plink
from tests.draws import draws


def genotypes(dosage):
    people, snps = dosage.shape
    names = tuple(f"rs{i}" for i in range(snps))
    return Plink(
        dosage.astype(np.int8),
        Snps(names, ("1",) * snps, np.arange(snps) * 1000, ("A",) * snps, ("G",) * snps),
        People(("F",) * people, tuple(f"P{i}" for i in range(people)), np.ones(people, np.int32)),
    )


@pytest.fixture
def written(tmp_path):
    """Five people at two SNPs, in bytes made by hand."""
    (tmp_path / "x.bed").write_bytes(
        bytes([0x6C, 0x1B, 0x01])
        # People 4 3 2 1 from the highest bits on: none, one, missing, two copies.
        + bytes([0b11_10_01_00, 0b00_00_00_11])
        + bytes([0b00_00_11_11, 0b00_00_00_01])
    )
    (tmp_path / "x.bim").write_text("1 rs1 0 100 A G\nX rs2 0 50 C T\n")
    people = [("a", "1"), ("b", "2"), ("c", "1"), ("d", "0"), ("e", "-9")]
    (tmp_path / "x.fam").write_text("".join(f"F {name} 0 0 {sex} -9\n" for name, sex in people))
    return tmp_path / "x.bed"


def test_bits_are_copies_of_allele_1(written):
    got = read_plink(written)
    assert got.dosage.dtype == np.int8
    assert got.dosage.T.tolist() == [[2, -1, 1, 0, 0], [0, 0, 2, 2, -1]]
    assert got.snps.name == ("rs1", "rs2") and got.snps.chromosome == ("1", "X")
    assert got.snps.position.tolist() == [100, 50]
    assert (got.snps.allele, got.snps.other) == (("A", "C"), ("G", "T"))
    assert got.people.name == tuple("abcde") and got.people.sex.tolist() == [1, 2, 1, 0, 0]


@draws(quick=15, thorough=200)
@given(people=st.integers(1, 13), snps=st.integers(1, 6), seed=st.integers(0, 1000))
def test_what_is_written_is_read_again(people, snps, seed, tmp_path_factory):
    dosage = np.random.default_rng(seed).integers(-1, 3, (people, snps))
    path = tmp_path_factory.mktemp("plink") / "x.bed"
    write_plink(path, genotypes(dosage))
    got = read_plink(path)
    np.testing.assert_array_equal(got.dosage, dosage)
    assert got.snps.name == tuple(f"rs{i}" for i in range(snps))
    assert path.stat().st_size == 3 + snps * -(-people // 4)


def refused(path):
    with pytest.raises(DataError) as error:
        read_plink(path)
    return str(error.value).replace(str(path.parent), "DIR")


def changed(path, ending, old, new):
    file = path.with_suffix(ending)
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    "ending, old, new, want",
    [
        (
            ".bed",
            b"\x6c\x1b",
            b"\x6c\x1c",
            "DIR/x.bed begins with the bytes 6c 1c; a PLINK 1 .bed file begins with 6c 1b.",
        ),
        (
            ".bed",
            b"\x1b\x01",
            b"\x1b\x00",
            "DIR/x.bed has the mode 00; only 01, SNP after SNP, can be read, so write it again "
            "with `plink --make-bed`.",
        ),
        (
            ".fam",
            b"F a 0 0 1 -9\n",
            b"",
            "DIR/x.bed has 7 bytes, but 4 people and 2 SNPs need 5; the three files must belong "
            "together.",
        ),
        (
            ".fam",
            b"F e",
            b"F b",
            "DIR/x.fam, line 5: the person 'F b' is in line 2 already; ids must differ.",
        ),
        (
            ".bim",
            b"rs2",
            b"rs1",
            "DIR/x.bim, line 2: the SNP 'rs1' is in line 1 already; ids must differ.",
        ),
        (
            ".bim",
            b"50 C T",
            b"50 C",
            "DIR/x.bim, line 2, has 5 fields; it must have six: chromosome, id, centimorgans, "
            "position and two alleles.",
        ),
        (
            ".bim",
            b" 50 ",
            b" 5e1 ",
            "DIR/x.bim, line 2: position must be a whole number, got '5e1'.",
        ),
        (".fam", b"F c", b"F \xff", "DIR/x.fam is no text (invalid start byte at byte 28)."),
    ],
)
def test_damaged_files_are_refused_in_a_sentence(written, ending, old, new, want):
    changed(written, ending, old, new)
    assert refused(written) == want


def test_missing_and_empty_files_are_named(written):
    written.with_suffix(".bim").write_text("")
    assert refused(written).startswith("DIR/x.bim is empty; it must have a line with chromosome")
    written.with_suffix(".bim").unlink()
    assert refused(written) == "DIR/x.bim cannot be read (No such file or directory)."


def test_other_dosages_are_not_written(tmp_path):
    with pytest.raises(DataError, match=re.escape("must be -1 (missing), 0, 1 or 2, got 3.")):
        write_plink(tmp_path / "x.bed", genotypes(np.array([[0, 3]])))
    wrong = genotypes(np.zeros((2, 3)))._replace(dosage=np.zeros((3, 2), np.int8))
    with pytest.raises(DataError, match=re.escape("must have shape [2, 3], people and SNPs, got")):
        write_plink(tmp_path / "x.bed", wrong)


def test_hapmap3_people_are_with_their_populations(shared_data_dir):
    folder = shared_data_dir / "hapmap3_geno"
    dataset = datasets.hapmap3(data_dir=shared_data_dir)
    sizes = dict(zip(dataset.client_names, dataset.train.sizes.tolist(), strict=True))
    assert sizes == {
        **{"ASW": 49, "CEU": 107, "CHB": 81, "CHD": 81, "GIH": 87, "JPT": 85},
        **{"LWK": 87, "MEX": 48, "MKK": 140, "TSI": 84, "YRI": 108},
    }
    # One person's row from the file by hand: the bits of every SNP's byte that are this person's.
    lines = (folder / "hapmap3_thin.fam").read_text().split("\n")
    position = next(i for i, line in enumerate(lines) if line.split()[1] == "NA19916")
    content = np.frombuffer((folder / "hapmap3_thin.bed").read_bytes()[3:], np.uint8)
    stride = -(-957 // 4)
    bits = content.reshape(-1, stride)[:, position // 4] >> (2 * (position % 4)) & 3
    want = np.array([2, np.nan, 1, 0], np.float32)[bits]
    people = [line.split()[1] for line in lines if line]
    population = {}
    for line in (folder / "relationships_w_pops_121708.txt").read_text().split("\n")[1:]:
        fields = line.split("\t")
        if len(fields) == 7:
            population[fields[1]] = fields[6]
    assert population["NA19916"] == "ASW"
    place = [p for p in people if population[p] == "ASW"].index("NA19916")
    got = dataset.train.client(0)["x"]
    # Rows of a client keep the order of the file.
    np.testing.assert_array_equal(got[place], want)
    assert np.isnan(dataset.train.examples["x"]).mean() == pytest.approx(0.0015, abs=1e-4)
    snps = datasets.hapmap3_snps(shared_data_dir)
    assert snps.name == dataset.feature_names and len(snps.name) == 14_389

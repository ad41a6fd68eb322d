"""HapMap 3: genotypes of 957 people of 11 populations, which are the clients.

Founders of phase III of the International HapMap Project at SNPs that are nearly independent of each
other (PLINK's filters `maf 0.01`, `geno 0.01`, `mind 0.01`, `hwe 5e-6`, `indep-pairwise 1000 10
0.02`), as distributed with flashpca. Populations differ as much as any: for federated principal
components, and for associations that structure imitates.

Of the SNPs 14,266 are on autosomes. In PLINK's codes 75 are on X ("23", where men have 0 or 2
copies), 39 in the pseudo-autosomal region ("25") and 9 in mitochondria ("26"):
`genomics.select_snps(dataset, genomics.is_autosomal(hapmap3_snps().chromosome))` leaves them out.

References:
  The International HapMap 3 Consortium, Nature 467, 2010. https://doi.org/10.1038/nature09298
"""

import csv
import os

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import Remote, locate, open_text
from fedjax_med.datasets.plink import Plink, Snps, read_bim, read_plink

LICENCE = "public domain (International HapMap Project data release policy, December 2004)"
SOURCE = "HapMap3/data.{bed,bim,fam} and relationships_w_pops_121708.txt, as in flashpca"
CITATION = (
    "The International HapMap 3 Consortium. Integrating common and rare genetic variation in "
    "diverse human populations. Nature 2010;467(7311):52-58. doi:10.1038/nature09298."
)

_URL = (
    "https://raw.githubusercontent.com/gabraham/flashpca/"
    "b8044f13607a072125828547684fde8b081d6191/HapMap3/"
)
_FILES = {
    "hapmap3_thin.bed": Remote(
        _URL + "data.bed", "3919b6d83d2c4bd6607241b86a5734f27f69454ddbc88b947ff50a2b5a47fc06"
    ),
    "hapmap3_thin.bim": Remote(
        _URL + "data.bim", "605dc9f8ebc7d24660e81b7e6aeb9283ba33f34cc198be74756aa819fd094fd5"
    ),
    "hapmap3_thin.fam": Remote(
        _URL + "data.fam", "d70ddafd3caed0b974e5029f550817a822a8afafe277920633c28766069ec509"
    ),
    "relationships_w_pops_121708.txt": Remote(
        _URL + "relationships_w_pops_121708.txt",
        "2f109108a43a4115d7e696a469470999858bfd177df51dc5bf5331bcc7205691",
    ),
}
_FOLDER = "hapmap3-geno"


def hapmap3(
    *,
    data_dir: str | os.PathLike | None = None,
    validation: float = 0.0,
    test: float = 0.0,
    seed: int = 0,
) -> FederatedDataset:
    """Loads 957 people of 11 populations at 14,389 SNPs.

    `x` is float32 `[N, 14389]`: copies of allele 1, 0, 1 or 2, **NaN where missing** (0.15 %).
    `feature_names` are rs ids; `hapmap3_snps` has chromosomes, positions and alleles. `y` is int32
    `[N]`, the population by `label_names`: there is no phenotype, `genomics.simulate_phenotype`
    makes some.

    Clients are populations by their HapMap codes, in alphabetical order: 48 people (MEX) to 140
    (MKK). Each has a single label.

    Args:
      data_dir: folder with local copies; see `FEDJAX_MED_DATA` as well. Without one they are
        downloaded once (4 MB).
      validation: fraction of each population for validation.
      test: fraction of each population for test; none by default, as associations have no use
        for it.
      seed: of the division into training, validation and test.

    Raises:
      DataError: if a file is missing or damaged, or an option is not allowed.
    """
    genotypes, population = _read(data_dir)
    codes, client = np.unique(population, return_inverse=True)
    x = genotypes.dosage.astype(np.float32)
    x[genotypes.dosage < 0] = np.nan
    dataset = FederatedDataset.from_assignment(
        {"x": x, "y": client.astype(np.int32)},
        client,
        tuple(codes.tolist()),
        name="hapmap3",
        feature_names=genotypes.snps.name,
        label_names=tuple(codes.tolist()),
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )
    return dataset.split(validation=validation, test=test, seed=seed)


def hapmap3_snps(data_dir: str | os.PathLike | None = None) -> Snps:
    """Chromosome, position (NCBI build 36) and alleles of the columns of `hapmap3`.

    Raises:
      DataError: if a file is missing or damaged.
    """
    return read_bim(locate(_FOLDER, _FILES, data_dir)["hapmap3_thin.bim"])


def _read(data_dir: str | os.PathLike | None) -> tuple[Plink, np.ndarray]:
    """Genotypes, and the population of every person."""
    paths = locate(_FOLDER, _FILES, data_dir)
    bed, bim, fam = (paths[f"hapmap3_thin.{kind}"] for kind in ("bed", "bim", "fam"))
    if any(path.suffix == ".gz" for path in (bed, bim, fam)):
        raise DataError(f"{bed.parent} has packed PLINK files; unpack them with gunzip.")
    genotypes = read_plink(bed, bim, fam)
    with open_text(paths["relationships_w_pops_121708.txt"]) as file:
        of_person = {row["IID"]: row["population"] for row in csv.DictReader(file, delimiter="\t")}
    return genotypes, np.array([of_person[name] for name in genotypes.people.name])

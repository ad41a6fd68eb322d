"""Triples of a knowledge graph, whose relations are spread over hospitals.

UMLS here is the benchmark of link prediction made from the UMLS Semantic Network: 135 types of
medical concepts and 46 relations between them. Courtesy of the U.S. National Library of Medicine.

References:
  Kok and Domingos, "Statistical Predicate Invention", ICML 2007.
  https://doi.org/10.1145/1273496.1273551
  McCray, "An upper-level ontology for the biomedical domain", Comparative and Functional Genomics 4,
  2003. https://doi.org/10.1002/cfg.255
  Chen et al., "FedE: Embedding Knowledge Graphs in Federated Setting", IJCKG 2021 (the division by
  relations). https://arxiv.org/abs/2010.12882
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_med.data import DataError, FederatedDataset
from fedjax_med.datasets._files import DATA_VARIABLE, Remote, locate, open_text

LICENCE = "MIT (files); UMLS Semantic Network by courtesy of the National Library of Medicine"
SOURCE = "UMLS link prediction benchmark, as in the repository TimDettmers/ConvE"
CITATION = (
    "Kok S, Domingos P. Statistical predicate invention. ICML 2007. McCray AT. An upper-level "
    "ontology for the biomedical domain. Comparative and Functional Genomics 2003;4(1):80-84. "
    "doi:10.1002/cfg.255."
)

# An archive that none of our downloads can unpack, so the files are brought by hand.
_ARCHIVE = "https://github.com/TimDettmers/ConvE/blob/master/umls.tar.gz"
_FILES = {
    "train.txt": Remote(
        _ARCHIVE, "873ef4925516b83e7f6f8cc02b4be51d848828710a7f65a956f0ac4a9e452f35"
    ),
    "valid.txt": Remote(
        _ARCHIVE, "025c98f8a4891e2a6582ec5b40ee0d904031edad9c52554522f4b7904820c98e"
    ),
    "test.txt": Remote(
        _ARCHIVE, "a7eb529a3d2810fcc96341ccc97c625a5e202f8389673aa6bd317eeebbb79014"
    ),
}
Triple = tuple[str, str, str]


def umls(
    *, data_dir: str | os.PathLike | None = None, clients: int = 5, seed: int = 0
) -> FederatedDataset:
    """Loads the 6,529 triples of UMLS: 5,216 for training, 652 for validation, 661 for test.

    Examples and names are those of `triple_dataset`; clients are "Hospital 1" and so on.

    Args:
      data_dir: folder with local copies of `train.txt`, `valid.txt` and `test.txt`; see
        `FEDJAX_MED_DATA` as well. They are those of the archive `umls.tar.gz` in the repository
        TimDettmers/ConvE, which has to be unpacked by hand.
      clients: hospitals, each with relations of its own, at most 46.
      seed: of who has which relations.

    Raises:
      DataError: if a file is missing or damaged, or `clients` is not allowed.
    """
    folder = data_dir or os.environ.get(DATA_VARIABLE)
    if not folder:
        raise DataError(
            f"umls needs local copies of {', '.join(_FILES)}: unpack {_ARCHIVE}, and pass --data-dir "
            f"(or data_dir=) or set {DATA_VARIABLE} to a folder that holds them."
        )
    return triple_dataset(
        locate("umls-kg", _FILES, folder),
        clients=clients,
        seed=seed,
        name="umls",
        licence=LICENCE,
        source=SOURCE,
        citation=CITATION,
    )


def triple_dataset(
    files: Mapping[str, str | os.PathLike],
    *,
    clients: int,
    seed: int = 0,
    name: str = "graph",
    **metadata: Any,
) -> FederatedDataset:
    """Reads a knowledge graph and gives every client the triples of some relations.

    Files have a triple per line: head, relation and tail, with tabs between them. Examples are
    `head`, `relation`, `tail` and `client`, each int32 `[N]`: numbers of entities, of relations, and
    of the client itself. `label_names` are the entities by their numbers and `feature_names` the
    relations, both in alphabetical order. Relations are dealt out at random, about the same number
    to each client (Chen et al. 2021, section 4.1).

    Args:
      files: paths of `train.txt`, and of `valid.txt` and `test.txt` if they exist. Entities and
        relations are those of `train.txt`: of others no model could say anything.
      clients: how many, from 1 to the number of relations.
      seed: of who has which relations.
      name: of the dataset.
      **metadata: further fields of `FederatedDataset`, such as `licence`.

    Raises:
      DataError: if a line is no triple or names what `train.txt` does not (with file, line and
        name), a file has no triples or is missing, or `clients` is not allowed.
    """
    if "train.txt" not in files:
        raise DataError(f"files must have 'train.txt', got {', '.join(files) or 'none'}.")
    parts = {file: read_triples(path) for file, path in files.items()}
    train = parts["train.txt"]
    entities = sorted({triple[i] for triple in train for i in (0, 2)})
    relations = sorted({triple[1] for triple in train})
    if not 1 <= clients <= len(relations):
        raise DataError(
            f"clients must be from 1 to {len(relations)}, the relations of {name}, got {clients!r}."
        )
    order = np.random.default_rng(seed).permutation(len(relations))
    owner = np.empty(len(relations), np.int32)
    for client, own in enumerate(np.array_split(order, clients)):
        owner[own] = client
    names = tuple(f"Hospital {i + 1}" for i in range(clients))
    splits = {}
    for split, file in (("train", "train.txt"), ("validation", "valid.txt"), ("test", "test.txt")):
        if file in parts:
            examples = _numbered(parts[file], Path(files[file]), entities, relations)
            examples["client"] = owner[examples["relation"]]
            made = FederatedDataset.from_assignment(examples, examples["client"], names)
            splits[split] = made.train
    return FederatedDataset(
        name,
        names,
        **splits,
        feature_names=tuple(relations),
        label_names=tuple(entities),
        **metadata,
    )


def read_triples(path: str | os.PathLike) -> list[Triple]:
    """The triples of a file with tabs between head, relation and tail.

    Raises:
      DataError: if the file is missing or empty, or a line is no triple.
    """
    triples: list[Triple] = []
    try:
        with open_text(Path(path)) as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) != 3 or not all(fields):
                    raise DataError(
                        f"{path} line {number} must be head, relation and tail with tabs between "
                        f"them, got {line.rstrip()!r}."
                    )
                triples.append((fields[0], fields[1], fields[2]))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    if not triples:
        raise DataError(f"{path} has no triples; at least one is needed.")
    return triples


def _numbered(
    triples: list[Triple], path: Path, entities: list[str], relations: list[str]
) -> dict[str, np.ndarray]:
    columns = {}
    for position, (key, names) in enumerate(
        (("head", entities), ("relation", relations), ("tail", entities))
    ):
        number = {name: i for i, name in enumerate(names)}
        values = np.empty(len(triples), np.int32)
        for line, triple in enumerate(triples):
            found = number.get(triple[position])
            if found is None:
                raise DataError(
                    f"{path} line {line + 1} has the {key} {triple[position]!r}, which is in no "
                    "triple of train.txt."
                )
            values[line] = found
        columns[key] = values
    return columns

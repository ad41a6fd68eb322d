"""Small datasets of every modality that has a design of its own."""

import numpy as np

from fedjax_med.data import ClientArrays, FederatedDataset
from fedjax_med.datasets._gdsc import responses, responses_held_out

QUICK = {
    "graph": {"methods": ("TransE",), "num_seeds": 2, "rounds": 1, "local_epochs": 1},
    "responses": {"methods": ("fedavg",), "num_seeds": 2, "rounds": 1},
    "genotypes": {"methods": ("intercepts", "ridge"), "num_seeds": 2},
}


def make_graph(num_entities=12, num_relations=4):
    """Relation r goes from entity e to e + r + 1; two relations at each of two hospitals."""
    entity = np.arange(num_entities)
    rows = np.array(
        [(e, r, (e + r + 1) % num_entities) for r in range(num_relations) for e in entity.tolist()],
        np.int32,
    )
    part = np.random.default_rng(0).permutation(len(rows)) % 6  # 0 test, 1 validation
    client = rows[:, 1] * 2 // num_relations
    splits = {}
    for name, mine in (("train", part > 1), ("validation", part == 1), ("test", part == 0)):
        some, owner = rows[mine], client[mine].astype(np.int32)
        columns = zip(("head", "relation", "tail"), some.T, strict=True)
        examples = {key: np.ascontiguousarray(column) for key, column in columns}
        sizes = np.bincount(owner, minlength=2)
        splits[name] = ClientArrays({**examples, "client": owner}, sizes)
    return FederatedDataset(
        "toy-graph",
        ("North", "South"),
        **splits,
        feature_names=tuple(f"relation {r}" for r in range(num_relations)),
        label_names=tuple(f"entity {e}" for e in range(num_entities)),
    )


def make_responses(num_drugs=30):
    """Rank one and noise; a fifth of the patients' responses is asked for."""
    rng = np.random.default_rng(0)
    sizes = np.array([12, 9, 15])
    x = np.outer(rng.normal(size=sizes.sum()), rng.normal(size=num_drugs)) + rng.normal(
        0, 0.3, (sizes.sum(), num_drugs)
    )
    x = np.where(rng.random(x.shape) < 0.1, np.nan, x).astype(np.float32)
    whole = FederatedDataset(
        "toy-responses",
        ("bone", "lung", "skin"),
        ClientArrays(responses(x, x), sizes),
        feature_names=tuple(f"drug {i}" for i in range(num_drugs)),
    )
    return responses_held_out(whole, test=0.2, seed=0)


def make_genotypes(num_snps=1000):
    """Three populations with frequencies of their own, 0.5 % of the genotypes missing."""
    rng = np.random.default_rng(0)
    sizes = np.array([30, 24, 36])
    frequency = np.clip(
        rng.uniform(0.1, 0.9, num_snps) + rng.normal(0, 0.1, (3, num_snps)), 0.05, 0.95
    )
    client = np.repeat(np.arange(3), sizes)
    x = rng.binomial(2, frequency[client]).astype(np.float32)
    x[rng.random(x.shape) < 0.005] = np.nan
    return FederatedDataset(
        "toy-genotypes",
        ("A", "B", "C"),
        ClientArrays({"x": x, "y": client.astype(np.int32)}, sizes),
        feature_names=tuple(f"rs{i}" for i in range(num_snps)),
        label_names=("A", "B", "C"),
    )


MAKE = {"graph": make_graph, "responses": make_responses, "genotypes": make_genotypes}

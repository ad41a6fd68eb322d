import hashlib
import json
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.data import client_arrays as module
from fedjax_med.data._keys import random_keys
from fedjax_med.data._tree import leaves_with_paths, map_leaves


def make_client(n, seed=0, classes=2):
    rng = np.random.default_rng([seed, n])
    return {
        "x": rng.standard_normal((n, 3)).astype(np.float32),
        "y": rng.integers(0, classes, n).astype(np.int32),
    }


def make_dataset(**metadata):
    clients = {"North": make_client(7), "South": make_client(1), "West": make_client(12)}
    return FederatedDataset.from_clients(
        clients, name="toy", feature_names=("a", "b", "c"), **metadata
    )


def row_ids(sizes):
    """A dataset whose only leaf is the row number, so rows can be followed."""
    sizes = np.asarray(sizes)
    examples = {"id": np.arange(sizes.sum()), "y": np.arange(sizes.sum()) % 3}
    names = tuple(f"c{i}" for i in range(len(sizes)))
    return FederatedDataset("ids", names, ClientArrays(examples, sizes))


class Point(NamedTuple):
    u: object
    v: object


def test_from_clients_keeps_every_client_as_given():
    clients = {"b": make_client(4), "a": make_client(2), "c": make_client(9)}
    dataset = FederatedDataset.from_clients(clients, feature_names=["u", "v", "w"])
    assert dataset.client_names == ("b", "a", "c")
    assert dataset.feature_names == ("u", "v", "w")
    assert dataset.train.offsets.tolist() == [0, 4, 6, 15]
    assert (dataset.train.num_examples, dataset.num_clients) == (15, 3)
    for i, examples in enumerate(clients.values()):
        for key, leaf in dataset.train.client(i).items():
            np.testing.assert_array_equal(leaf, examples[key])
            assert leaf.dtype == examples[key].dtype
            assert np.shares_memory(leaf, dataset.train.examples[key])


def test_from_clients_fills_missing_held_out_clients_with_nothing():
    clients = {"a": make_client(2), "b": make_client(3)}
    dataset = FederatedDataset.from_clients(clients, test={"b": make_client(5)})
    assert dataset.test.sizes.tolist() == [0, 5]
    assert dataset.validation is None
    with pytest.raises(DataError, match=r"unknown client 'z'; the clients are 'a', 'b'\."):
        FederatedDataset.from_clients(clients, test={"z": make_client(5)})


@pytest.mark.parametrize(
    "second, sentence",
    [
        (
            {"x": np.zeros((2, 3), np.float32), "y": np.zeros(3, np.int32)},
            r"examples\['y'\] of client 'b' \(train\) has shape \(3,\)",
        ),
        (
            {"x": np.zeros((2, 4), np.float32), "y": np.zeros(2, np.int32)},
            r"client 'b' \(train\) .* examples\['x'\] has dtype float32 and shape \(4,\)",
        ),
        (
            {"x": np.zeros((2, 3), np.float64), "y": np.zeros(2, np.int32)},
            r"client 'b' \(train\) .* dtype float64",
        ),
        ({"x": np.zeros((2, 3), np.float32)}, r"examples\['y'\] is missing"),
    ],
)
def test_from_clients_names_the_client_that_does_not_fit(second, sentence):
    with pytest.raises(DataError, match=sentence):
        FederatedDataset.from_clients({"a": make_client(2), "b": second})


@pytest.mark.parametrize(
    "site, names",
    [
        (["b", "a", "b", "c"], ("a", "b", "c")),
        (np.array([10, 9, 10, 100]), ("9", "10", "100")),  # numbers by size, not as text
        ([(2, "x"), (1, "y"), (2, "x"), (3, "z")], ("(1, 'y')", "(2, 'x')", "(3, 'z')")),
    ],
)
def test_from_pooled_orders_clients_by_site_and_keeps_row_order(site, names):
    dataset = FederatedDataset.from_pooled({"id": np.arange(4)}, site)
    assert dataset.client_names == names
    assert [dataset.train.client(i)["id"].tolist() for i in range(3)] == [[1], [0, 2], [3]]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_from_pooled_refuses_a_missing_site(missing):
    with pytest.raises(DataError, match="site is missing in row 1"):
        FederatedDataset.from_pooled({"id": np.arange(2)}, [0.0, missing])


def test_from_pooled_refuses_other_lengths_and_names_that_coincide():
    with pytest.raises(DataError, match=r"examples\['id'\] has shape \(3,\).* 2 rows"):
        FederatedDataset.from_pooled({"id": np.arange(3)}, ["a", "b"])
    with pytest.raises(DataError, match="client name '1' occurs more than once"):
        FederatedDataset.from_pooled({"id": np.arange(2)}, [1, "1"])


@pytest.mark.parametrize(
    "examples, sizes, sentence",
    [
        ({"x": np.zeros(3), "y": [np.zeros(2)]}, [1, 2], r"examples\['y'\]\[0\] has shape \(2,\)"),
        ({"x": np.zeros(3)}, [1, 1], r"add up to 2 examples"),
        ({"x": np.array(["a"])}, [1], r"examples\['x'\] has dtype <U1"),
        ({"x": np.array([None])}, [1], r"has dtype object"),
        ({"x": np.float32(1)}, [1], r"has shape \(\)"),
        ({}, [0], r"holds no array"),
        ({"x": np.zeros(1)}, [2, -1], r"must not be negative, got -1"),
        ({"x": np.zeros(1)}, [1.0], r"list of integers"),
    ],
)
def test_client_arrays_refuse_what_does_not_fit(examples, sizes, sentence):
    with pytest.raises(DataError, match=sentence):
        ClientArrays(examples, np.array(sizes))


def test_client_index_out_of_range():
    with pytest.raises(IndexError, match=r"0\.\.2, got 3"):
        make_dataset().train.client(3)


def test_dataset_refuses_names_that_do_not_fit():
    arrays = ClientArrays(make_client(3), np.array([1, 2]))
    with pytest.raises(DataError, match="client name 'a' occurs more than once"):
        FederatedDataset("d", ("a", "a"), arrays)
    with pytest.raises(DataError, match="train has 2 clients, but client_names has 1"):
        FederatedDataset("d", ("a",), arrays)
    with pytest.raises(DataError, match=r"feature_names has 2 names.*has 3 columns"):
        FederatedDataset("d", ("a", "b"), arrays, feature_names=("u", "v"))
    other = ClientArrays({"x": np.zeros((0, 3), np.float32)}, np.array([0, 0]))
    with pytest.raises(DataError, match=r"test and train must.*examples\['y'\] is missing"):
        FederatedDataset("d", ("a", "b"), arrays, test=other)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.data())
def test_take_equals_the_clients_one_by_one(sizes, data):
    arrays = row_ids(sizes).train
    index = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8))
    taken = arrays.take(index)
    want = [arrays.client(i)["id"].tolist() for i in index]
    assert [taken.client(i)["id"].tolist() for i in range(len(index))] == want


def test_select_orders_all_splits_and_names_what_is_unknown():
    dataset = make_dataset().split(test=0.25)
    chosen = dataset.select(["West", "North"])
    assert chosen.client_names == ("West", "North")
    for new, name in enumerate(("West", "North")):
        old = dataset.client_index(name)
        for split in ("train", "test"):
            got = chosen.splits()[split].client(new)
            np.testing.assert_array_equal(got["x"], dataset.splits()[split].client(old)["x"])
    with pytest.raises(DataError, match=r"unknown client 'East'; the clients are 'North', "):
        dataset.select(["East"])
    with pytest.raises(DataError, match="unknown client 'East'"):
        dataset.client_index("East")
    with pytest.raises(DataError, match="'North' occurs more than once"):
        dataset.select(["North", "North"])
    with pytest.raises(DataError, match="names is empty"):
        dataset.select([])


def test_pooled_is_one_client_without_a_copy():
    dataset = make_dataset().split(validation=0.2)
    pooled = dataset.pooled()
    assert pooled.client_names == ("pooled",)
    assert pooled.train.sizes.tolist() == [dataset.train.num_examples]
    assert pooled.validation.sizes.tolist() == [dataset.validation.num_examples]
    assert np.shares_memory(pooled.train.examples["x"], dataset.train.examples["x"])


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    validation=st.floats(0.0, 0.49),
    test=st.floats(0.0, 0.5),
    seed=st.integers(0, 2**64),
    stratify=st.sampled_from(["y", None]),
)
def test_split_uses_every_row_once_and_leaves_training_rows(
    sizes, validation, test, seed, stratify
):
    dataset = row_ids(sizes)
    parts = dataset.split(validation=validation, test=test, seed=seed, stratify=stratify).splits()
    ids = np.concatenate([arrays.examples["id"] for arrays in parts.values()])
    np.testing.assert_array_equal(np.sort(ids), np.arange(sum(sizes)))
    for i, n in enumerate(sizes):
        own = range(dataset.train.offsets[i], dataset.train.offsets[i + 1])
        for arrays in parts.values():
            rows = arrays.client(i)["id"]
            assert set(rows) <= set(own)  # nobody's rows move to another client
            assert (np.diff(rows) > 0).all()  # and they keep their order
        assert parts["train"].sizes[i] >= 1
        num_test = min(int(n * test + 0.5), n - 1)
        assert ("test" not in parts and test == 0) or parts["test"].sizes[i] == num_test
        num_validation = min(int(n * validation + 0.5), n - 1 - num_test)
        assert ("validation" not in parts) or parts["validation"].sizes[i] == num_validation


@given(
    counts=st.lists(st.integers(0, 40), min_size=2, max_size=5).filter(sum),
    fractions=st.sampled_from([(0.2, 0.2), (0.0, 0.34), (0.1, 0.3), (0.4, 0.5)]),
    seed=st.integers(0, 1000),
)
def test_split_keeps_classes_in_proportion(counts, fractions, seed):
    y = np.repeat(np.arange(len(counts)), counts)
    dataset = FederatedDataset.from_clients(
        {"a": {"y": np.random.default_rng(seed).permutation(y)}}
    )
    split = dataset.split(validation=fractions[0], test=fractions[1], seed=seed)
    n = len(y)
    for arrays in split.splits().values():
        share = arrays.num_examples / n
        got = np.bincount(arrays.examples["y"], minlength=len(counts))
        # A stretch of the interleaved order: each end is off by at most half an example of
        # the class, and by what the other classes' halves move the end itself.
        bound = 1 + (len(counts) - 1) / 2 * np.array(counts) / n + 1e-9
        assert (np.abs(got - share * np.array(counts)) <= bound).all()


def test_split_is_deterministic_and_depends_on_the_seed():
    dataset = row_ids([50, 60])
    first = dataset.split(test=0.3, seed=1)
    assert first.fingerprint() == dataset.split(test=0.3, seed=1).fingerprint()
    assert first.fingerprint() != dataset.split(test=0.3, seed=2).fingerprint()


def test_split_is_fixed_for_ever():
    # Derived by hand with Python's integers: a change here would move patients between
    # training and test sets. Of each class {j, j + 3}, the row with the lower key is test.
    def mix(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    client = int.from_bytes(hashlib.sha256(b"c0").digest()[:8], "little")
    start = mix(mix(17) ^ client)
    key = [mix((start + 0x9E3779B97F4A7C15 * (row + 1)) % 2**64) for row in range(6)]
    want = sorted(min(j, j + 3, key=key.__getitem__) for j in range(3))
    assert row_ids([6]).split(test=0.5, seed=17).test.examples["id"].tolist() == want


def test_split_of_a_client_ignores_the_other_clients():
    dataset = make_dataset()
    names = ["West", "North"]
    together = dataset.split(validation=0.2, test=0.3, seed=5).select(names)
    alone = dataset.select(names).split(validation=0.2, test=0.3, seed=5)
    assert together.fingerprint() == alone.fingerprint()


def test_split_is_random_over_seeds():
    dataset = row_ids([10])
    times = np.zeros(10)
    for seed in range(400):
        times[dataset.split(test=0.3, seed=seed, stratify=None).test.examples["id"]] += 1
    # Each row is drawn 400 * 0.3 = 120 times, standard deviation 9.2; five of them.
    assert np.abs(times - 120).max() < 46
    assert times.std() > 1  # not the same rows in turn


def test_split_keeps_what_is_held_out_already():
    dataset = make_dataset().split(test=0.25, seed=3)
    again = dataset.split(validation=0.25, seed=3)
    assert again.test is dataset.test
    assert again.train.num_examples + again.validation.num_examples == dataset.train.num_examples
    with pytest.raises(DataError, match="'toy' has test examples already"):
        dataset.split(test=0.1)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"test": 1.0}, r"test must be a fraction in \[0, 1\), got 1\.0"),
        ({"validation": -0.1}, r"validation must be a fraction"),
        ({"validation": float("nan")}, r"validation must be a fraction"),
        ({"validation": 0.5, "test": 0.5}, r"validation \+ test must be below 1, got 1\.0"),
        ({"test": 0.5, "stratify": "z"}, r"no leaf 'z' to stratify by; pass stratify=None"),
        ({"test": 0.5, "stratify": "x"}, r"one dimension to stratify by; pass stratify=None"),
    ],
)
def test_split_refuses(options, sentence):
    with pytest.raises(DataError, match=sentence):
        make_dataset().split(**options)


def test_map_examples_reaches_every_split():
    dataset = make_dataset().split(test=0.25)
    halved = dataset.map_examples(lambda e: {"x": e["x"] / 2, "y": e["y"]})
    np.testing.assert_array_equal(halved.test.examples["x"] * 2, dataset.test.examples["x"])
    assert halved.feature_names == dataset.feature_names
    narrow = dataset.map_examples(lambda e: {"x": e["x"][:, :1]})
    assert narrow.feature_names == ()
    with pytest.raises(DataError, match="add up to"):
        dataset.map_examples(lambda e: {"x": e["x"][1:]})


def changed(dataset, change):
    """The dataset after `change` of its training examples, which it may edit in place."""
    examples = {key: leaf.copy() for key, leaf in dataset.train.examples.items()}
    return dataset.replace(test=None, train=ClientArrays(change(examples), dataset.train.sizes))


def set_bit(examples):
    examples["x"].view(np.uint32)[-1, -1] ^= 1
    return examples


def test_fingerprint_changes_on_any_change():
    dataset = make_dataset()
    x, names = dataset.train.examples["x"], dataset.client_names
    variants = [
        dataset,
        changed(dataset, set_bit),
        changed(dataset, lambda e: {"x": e["x"], "z": e["y"]}),
        changed(dataset, lambda e: {"x": e["x"], "y": e["y"].astype(np.uint32)}),
        changed(dataset, lambda e: {"x": e["x"][:, None, :], "y": e["y"]}),
        changed(dataset, lambda e: {"x": e["x"][::-1], "y": e["y"]}),
        dataset.replace(client_names=("North", "South", "East")),
        dataset.replace(client_names=("Nort", "hSouth", "West")),
        dataset.replace(feature_names=("a", "b", "d")),
        dataset.replace(label_names=("no", "yes")),
        dataset.replace(test=dataset.train),
        dataset.replace(validation=dataset.train),
        dataset.replace(train=ClientArrays(dataset.train.examples, np.array([8, 0, 12]))),
        dataset.replace(train=ClientArrays({"x": x}, dataset.train.sizes)),
    ]
    prints = [v.fingerprint() for v in variants]
    assert len(set(prints)) == len(variants)
    assert all(len(p) == 64 for p in prints)
    assert names == dataset.client_names


def test_fingerprint_is_of_values_not_of_their_storage(tmp_path, monkeypatch):
    dataset = make_dataset()
    want = dataset.fingerprint()
    assert dataset.replace(licence="other", citation="other", name="b").fingerprint() == want
    as_fortran = changed(dataset, lambda e: {"x": np.asfortranarray(e["x"]), "y": e["y"]})
    as_big_endian = changed(dataset, lambda e: {**e, "x": e["x"].astype(">f4")})
    in_other_order = changed(dataset, lambda e: {"y": e["y"], "x": e["x"]})
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(20, 3))
    mapped[:] = dataset.train.examples["x"]
    as_memmap = changed(dataset, lambda e: {**e, "x": mapped})
    assert isinstance(as_memmap.train.examples["x"], np.memmap)
    for variant in (as_fortran, as_big_endian, in_other_order, as_memmap):
        assert variant.fingerprint() == want
    monkeypatch.setattr(module, "_CHUNK_BYTES", 24)  # two rows at a time
    assert dataset.fingerprint() == want


def test_summary_counts_sizes_and_labels():
    clients = {
        "a": {"y": np.array([0, 1, 1])},
        "b": {"y": np.array([1])},
    }
    dataset = FederatedDataset.from_clients(clients, test={"a": {"y": np.array([1, 3])}})
    assert dataset.summary() == [
        {
            "name": "a",
            "train": 3,
            "validation": 0,
            "test": 2,
            "label_counts": {"0": 1, "1": 3, "3": 1},
        },
        {
            "name": "b",
            "train": 1,
            "validation": 0,
            "test": 0,
            "label_counts": {"0": 0, "1": 1, "3": 0},
        },
    ]
    named = dataset.replace(label_names=("no", "yes", "perhaps"))
    assert named.summary()[0]["label_counts"] == {"no": 1, "yes": 3, "perhaps": 0, "3": 1}
    without = FederatedDataset.from_clients({"a": {"y": np.array([0.5])}})
    assert without.summary() == [{"name": "a", "train": 1, "validation": 0, "test": 0}]


@pytest.mark.parametrize("memory_map", [True, False])
def test_save_and_load_give_the_same_dataset(tmp_path, memory_map):
    def examples(n):
        return {
            "x": np.random.default_rng(n).standard_normal((n, 2)),
            "more": [np.arange(n), (np.arange(n) > 1, None)],
            "half": np.linspace(0, 1, n).astype(ml_dtypes.bfloat16),
        }

    dataset = FederatedDataset.from_clients(
        {"a": examples(3), "ü": examples(5)},
        test={},
        name="nested",
        feature_names=("u", "v"),
        licence="CC0",
        source="here",
        citation="me",
    )
    dataset.save(tmp_path / "deep" / "folder")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["folder"]  # nothing temporary
    loaded = FederatedDataset.load(tmp_path / "deep" / "folder", memory_map, verify=True)
    assert loaded.fingerprint() == dataset.fingerprint()
    assert jax.tree.structure(loaded.train.examples) == jax.tree.structure(dataset.train.examples)
    for field in ("name", "licence", "source", "citation", "feature_names"):
        assert getattr(loaded, field) == getattr(dataset, field)
    assert isinstance(loaded.train.examples["x"], np.memmap) == memory_map
    assert loaded.train.examples["half"].dtype == ml_dtypes.bfloat16
    assert loaded.test.sizes.tolist() == [0, 0]


def test_save_never_writes_over_anything(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine exists already"):
        make_dataset().save(tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())


def test_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="No space left"):
        make_dataset().save(tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("examples", [Point(np.zeros(1), np.zeros(1)), {1: np.zeros(1)}])
def test_save_refuses_containers_it_could_not_restore(tmp_path, examples):
    with pytest.raises(DataError, match=r"can(not)? be saved"):
        FederatedDataset.from_clients({"a": examples}).save(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_load_names_what_is_wrong(tmp_path):
    folder = tmp_path / "data"
    with pytest.raises(DataError, match=r"holds no manifest\.json"):
        FederatedDataset.load(folder)
    make_dataset().save(folder)

    def fails(sentence, **options):
        with pytest.raises(DataError, match=sentence):
            FederatedDataset.load(folder, **options)

    leaf = folder / "train.0.npy"
    original = leaf.read_bytes()
    leaf.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    FederatedDataset.load(folder)  # not noticed without looking at the data
    fails(r"has fingerprint .* its manifest says", verify=True)
    leaf.write_bytes(original[:-5])
    fails(r"train\.0\.npy is missing or damaged")
    np.save(leaf, np.zeros((20, 4), np.float32))
    fails(r"holds float32 \[20, 4\], but the manifest says float32 \[20, 3\]")
    leaf.unlink()
    fails(r"train\.0\.npy is missing or damaged")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    fails(r"has format and version")
    del manifest["licence"]
    np.save(leaf, np.zeros((20, 3), np.float32))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    fails(r"manifest\.json is not as it was saved \(KeyError\('licence'\)\)")
    (folder / "manifest.json").write_text("[]")
    fails(r"manifest\.json is not as it was saved")
    (folder / "manifest.json").write_text("{")
    fails(r"manifest\.json cannot be read")


def test_trees_are_walked_as_jax_walks_them():
    tree = {"b": [1, (2, None)], "a": Point(3, {"z": 4, "y": 5}), "c": ()}
    want = [(jax.tree_util.keystr(p), v) for p, v in jax.tree_util.tree_leaves_with_path(tree)]
    assert list(leaves_with_paths(tree)) == want
    assert map_leaves(lambda a, b: a + b, tree, tree) == jax.tree.map(lambda a: 2 * a, tree)


def test_random_keys_are_splitmix64():
    # The published first outputs for state 0 (Vigna's splitmix64.c): mix(golden * 1), ...
    from fedjax_med.data._keys import _GOLDEN, _mix

    with np.errstate(over="ignore"):
        states = _GOLDEN * np.arange(1, 4, dtype=np.uint64)
    want = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert _mix(states).tolist() == want
    keys = random_keys(0, np.uint64(1), np.arange(100_000))
    assert len(np.unique(keys)) == len(keys)
    # Mean of 1e5 uniforms: standard deviation 0.29 / sqrt(1e5) = 0.0009; five of them.
    assert abs((keys / 2.0**64).mean() - 0.5) < 0.005
    assert (random_keys(1, np.uint64(1), np.arange(9)) != keys[:9]).all()
    assert (random_keys(0, np.uint64(2), np.arange(9)) != keys[:9]).all()

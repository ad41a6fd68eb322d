"""Dictionaries, lists and tuples of arrays, walked as JAX walks them but without importing JAX.

Dictionaries are visited in sorted key order and `None` holds no leaf, as in `jax.tree_util`,
so paths and leaf order agree with what JAX prints.
"""

from collections.abc import Callable, Iterator
from typing import Any

PyTree = Any


def leaves_with_paths(tree: PyTree, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields `(path, leaf)`; paths read like `jax.tree_util.keystr`, such as `['x'][0]`."""
    if tree is None:
        return
    if isinstance(tree, dict):
        for key in _sorted_keys(tree):
            yield from leaves_with_paths(tree[key], f"{path}[{key!r}]")
    elif isinstance(tree, tuple) and (fields := getattr(tree, "_fields", None)):
        for field, child in zip(fields, tree, strict=True):
            yield from leaves_with_paths(child, f"{path}.{field}")
    elif isinstance(tree, list | tuple):
        for index, child in enumerate(tree):
            yield from leaves_with_paths(child, f"{path}[{index}]")
    else:
        yield path, tree


def leaves(tree: PyTree) -> list[Any]:
    """The leaves of `tree` in canonical order."""
    return [leaf for _, leaf in leaves_with_paths(tree)]


def map_leaves(fn: Callable[..., Any], tree: PyTree, *others: PyTree) -> PyTree:
    """Applies `fn` to the corresponding leaves of trees of equal structure."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {key: map_leaves(fn, tree[key], *(o[key] for o in others)) for key in tree}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        children = zip(tree, *others, strict=True)
        return type(tree)(*(map_leaves(fn, *child) for child in children))
    if isinstance(tree, list | tuple):
        return type(tree)(map_leaves(fn, *child) for child in zip(tree, *others, strict=True))
    return fn(tree, *others)


def _sorted_keys(tree: dict) -> list[Any]:
    try:
        return sorted(tree)
    except TypeError:  # keys of mixed types have no order of their own
        return sorted(tree, key=lambda key: (type(key).__name__, repr(key)))

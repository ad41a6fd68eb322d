"""What is measured of a kernel: functions of the arrays of all clients, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Function = Callable[..., PyTree]
PASSES = ("forward", "gradient")


class Cost(NamedTuple):
    """What a computation takes by its definition, whatever an implementation does.

    Attributes:
      operations: multiplications, additions and comparisons of the forward pass.
      gradient_operations: of result and gradients together; None without gradients.
      bytes: of every argument and the result once: the least the forward pass has to move.
      gradient_bytes: those, the cotangent and the gradients.
      counted: how, in a few words.
      integers: whether the operations are on integers.
    """

    operations: float
    gradient_operations: float | None
    bytes: float
    gradient_bytes: float | None
    counted: str
    integers: bool = False

    def of(self, name: str) -> tuple[float, float]:
        """Operations and bytes of a pass."""
        if name == "forward":
            return self.operations, self.bytes
        assert self.gradient_operations is not None and self.gradient_bytes is not None
        return self.gradient_operations, self.gradient_bytes


class Bound(NamedTuple):
    """How far a result may be from that of the plain implementation in float64.

        |got - want| <= terms * eps * size

    where `size` is what the plain implementation makes of the absolute values of some arguments:
    for sums of products, the sum of their sizes.

    Attributes:
      terms: for every result and every gradient, the length of its sums; 0 where nothing is
        rounded.
      absolute: positions of the arguments whose absolute values give the size.
      gradient_sizes: `(cotangent, *arguments) -> sizes` of result and gradients, where signs
        cancel even among absolute values.
      growth: of implementations whose sums are not those of the definition, how much larger they
        can be: their error is measured against that times the largest size.
      products: whether results are matrix products, which accelerators round to fewer digits.
    """

    terms: tuple[int, ...]
    absolute: tuple[int, ...] = ()
    gradient_sizes: Function | None = None
    growth: dict[str, float] = {}  # noqa: RUF012 (never mutated)
    products: bool = False


class Benchmark(NamedTuple):
    """One case of a kernel for a number of clients.

    Attributes:
      arguments: arrays of all clients.
      implementations: functions of the arguments by name.
      plain: name of the one that is plain JAX.
      default: name of the one that runs where none is named.
      cost: by definition.
      bound: for the check against float64.
      differentiated: positions of the arguments by which gradients are taken; () for none.
      check: instead of the comparison with float64, `(result, arguments) -> problem or None`.
      per_client: whether clients are independent, so that some of them stand for all.
    """

    arguments: tuple[PyTree, ...]
    implementations: dict[str, Function]
    plain: str
    default: str | None
    cost: Cost
    bound: Bound | None = None
    differentiated: tuple[int, ...] = ()
    check: Callable[[PyTree, tuple[PyTree, ...]], str | None] | None = None
    per_client: bool = False


def normal(shape: tuple[int, ...], seed: int) -> jax.Array:
    """Normal numbers in float32, the same everywhere."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def result_and_gradients(fn: Function, differentiated: tuple[int, ...]) -> Function:
    """`(cotangent, *arguments) -> (result, *gradients)`, by the arguments named."""

    def both(cotangent: PyTree, *arguments: PyTree) -> tuple[PyTree, ...]:
        def of_some(*some: PyTree) -> PyTree:
            filled = list(arguments)
            for position, value in zip(differentiated, some, strict=True):
                filled[position] = value
            return fn(*filled)

        result, pull_back = jax.vjp(of_some, *(arguments[p] for p in differentiated))
        return (result, *pull_back(cotangent))

    return both


def size_of(tree: PyTree) -> int:
    """Bytes of all arrays of a pytree (or of their shapes)."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def cost_of(
    fn: Function,
    arguments: tuple[PyTree, ...],
    differentiated: tuple[int, ...],
    operations: float,
    counted: str,
    *,
    gradient_factor: float = 2.0,
    integers: bool = False,
) -> Cost:
    """Bytes from shapes; a gradient pass takes `gradient_factor` times the operations."""
    out = size_of(jax.eval_shape(fn, *arguments))
    forward = size_of(arguments) + out
    if not differentiated:
        return Cost(operations, None, forward, None, counted, integers)
    gradients = size_of(tuple(arguments[p] for p in differentiated))
    return Cost(
        operations,
        gradient_factor * operations,
        forward,
        forward + out + gradients,  # the cotangent has the size of the result
        counted,
        integers,
    )

"""Convolution on NVIDIA GPUs as an implicit matrix product (Pallas, Triton).

The patches are the left matrix of a product but are never written: each program gathers the tile it
needs from the padded lhs. That is cheap to address, because the place of element `(p, k)` of the
patch matrix in memory is a sum of a term of the place `p` and a term of the tap and channel `k`,
for any number of spatial dimensions, stride and dilation. Clients and feature groups are an axis of
the grid. (Chetlur et al., cuDNN, 2014, section 3.1. https://arxiv.org/abs/1410.0759)

The gradient by the rhs is the product of the transposed patch matrix with the cotangent, its places
split over several programs whose sums are added up at the end; the gradient by the lhs is the
forward kernel on the cotangent, phase by phase of the strides (`phases.py`).

Checked in the interpreter and lowered for CUDA, not yet run or timed on a GPU; hence no rule of
`selection.json` chooses it. JAX 0.12 warns that its Triton backend will be removed.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jax.typing import DTypeLike
from jaxtyping import Array

from fedjax_med_kernels.convolution import phases
from fedjax_med_kernels.convolution.window import Window, padded

_MAX_ELEMENTS = 2**31 - 1  # offsets are int32


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Sizes of the matrix tiles of one program; powers of two, at least 16.

    Attributes:
      places: rows of the patch matrix.
      terms: columns of the patch matrix (taps times input channels).
      outputs: output channels.
      num_warps: warps of a program, 32 threads each.
      num_stages: depth of the software pipeline over loads.
      programs: into about how many programs the gradient by the rhs is split.
    """

    places: int = 64
    terms: int = 32
    outputs: int = 64
    num_warps: int = 4
    num_stages: int = 3
    programs: int = 1024

    def __post_init__(self):
        for name in ("places", "terms", "outputs"):
            size = getattr(self, name)
            if size < 16 or size & (size - 1):
                raise ValueError(f"{name} must be a power of two of at least 16, got {size}.")


@dataclasses.dataclass(frozen=True)
class PallasGpu:
    """Implicit matrix product in a Pallas kernel; float32, bfloat16 and float16.

    Attributes:
      tiles: sizes of the tiles.
      interpret: whether to run in the interpreter, on any device (slow; for tests).
    """

    tiles: Tiles = Tiles()
    interpret: bool = False

    name = "pallas_gpu"

    def forward(
        self, x: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The convolution; arguments and result in the common layout (`window.py`)."""
        x = padded(x, window)
        _refuse(x, w)
        shape = _Shape.of(x, window, w.shape[-1])
        tiles = _fitted(self.tiles, shape)
        out = (*x.shape[:2], *window.output_size, shape.groups, shape.outputs)
        y = pl.pallas_call(
            functools.partial(_forward_kernel, shape=shape, tiles=tiles, precision=precision),
            out_shape=jax.ShapeDtypeStruct((math.prod(out),), jnp.dtype(dtype)),
            grid=(
                pl.cdiv(shape.places, tiles.places),
                pl.cdiv(shape.outputs, tiles.outputs),
                shape.clients * shape.groups,
            ),
            compiler_params=plgpu.CompilerParams(
                num_warps=tiles.num_warps, num_stages=tiles.num_stages
            ),
            interpret=self.interpret,
            name="client_convolution",
        )(x.reshape(-1), w.reshape(-1))
        return y.reshape(out)

    def input_gradient(
        self, g: Array, w: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the lhs, from the cotangent `g` and the rhs."""
        forward = functools.partial(self.forward, precision=precision, dtype=dtype)
        return phases.input_gradient(forward, g, w, window)

    def weight_gradient(
        self, x: Array, g: Array, window: Window, precision: lax.PrecisionLike, dtype: DTypeLike
    ) -> Array:
        """The gradient by the rhs, from the lhs and the cotangent `g`."""
        x = padded(x, window)
        _refuse(x, g)
        shape = _Shape.of(x, window, g.shape[-1])
        tiles = _fitted(self.tiles, shape)
        grid = (
            pl.cdiv(shape.terms, tiles.terms),
            pl.cdiv(shape.outputs, tiles.outputs),
            shape.clients * shape.groups,
        )
        # A few large matrices have few tiles, so their sums over places are split as well.
        steps = pl.cdiv(shape.places, tiles.places)
        splits = max(1, min(pl.cdiv(tiles.programs, math.prod(grid)), steps // 4))
        kernel = functools.partial(
            _weight_gradient_kernel,
            shape=shape,
            tiles=tiles,
            steps=pl.cdiv(steps, splits),
            precision=precision,
        )
        out = (shape.clients, *window.kernel_size, *x.shape[-2:], shape.outputs)
        parts = pl.pallas_call(
            kernel,
            out_shape=jax.ShapeDtypeStruct((splits * math.prod(out),), jnp.float32),
            grid=(*grid[:2], grid[2] * splits),
            compiler_params=plgpu.CompilerParams(
                num_warps=tiles.num_warps, num_stages=tiles.num_stages
            ),
            interpret=self.interpret,
            name="client_convolution_weight_gradient",
        )(x.reshape(-1), g.reshape(-1))
        return parts.reshape(splits, *out).sum(axis=0).astype(dtype)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """Sizes and memory steps, all known when the kernel is compiled; channels lie next to another.

    Attributes:
      clients, groups, inputs, outputs: as in `window.py`.
      places: rows of a client's patch matrix.
      terms: its columns.
      client_step: elements of the padded lhs per client.
      place_sizes, place_steps: axes of the places, and how far apart they lie in the lhs.
      tap_sizes, tap_steps: the same of the taps.
    """

    clients: int
    groups: int
    inputs: int
    outputs: int
    places: int
    terms: int
    client_step: int
    place_sizes: tuple[int, ...]
    place_steps: tuple[int, ...]
    tap_sizes: tuple[int, ...]
    tap_steps: tuple[int, ...]

    @classmethod
    def of(cls, x: Array, window: Window, outputs: int) -> "_Shape":
        clients, batch, *size, groups, inputs = x.shape
        channels = groups * inputs
        steps = tuple(math.prod(size[i + 1 :]) * channels for i in range(len(size)))
        scaled = lambda factors: tuple(f * s for f, s in zip(factors, steps, strict=True))
        return cls(
            clients=clients,
            groups=groups,
            inputs=inputs,
            outputs=outputs,
            places=batch * math.prod(window.output_size),
            terms=math.prod(window.kernel_size) * inputs,
            client_step=batch * math.prod(size) * channels,
            place_sizes=(batch, *window.output_size),
            place_steps=(math.prod(size) * channels, *scaled(window.strides)),
            tap_sizes=window.kernel_size,
            tap_steps=scaled(window.rhs_dilation),
        )


def _refuse(a: Array, b: Array) -> None:
    for x in (a, b):
        if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
            raise NotImplementedError(
                f"PallasGpu computes in float32, bfloat16 and float16, got {x.dtype}; "
                "use Patches() or Library()."
            )
        if x.size > _MAX_ELEMENTS:
            raise NotImplementedError(
                f"PallasGpu takes arrays of at most {_MAX_ELEMENTS} elements, got {x.size}; "
                "map over fewer clients at a time."
            )


def _fitted(tiles: Tiles, shape: _Shape) -> Tiles:
    """Smaller tiles where the matrices are small."""
    fit = lambda tile, size: min(tile, max(16, pl.next_power_of_2(size)))
    return dataclasses.replace(
        tiles,
        places=fit(tiles.places, shape.places),
        terms=fit(tiles.terms, shape.terms),
        outputs=fit(tiles.outputs, shape.outputs),
    )


def _forward_kernel(x_ref, w_ref, y_ref, *, shape: _Shape, tiles: Tiles, precision: Any):
    client, group = _client_and_group(pl.program_id(2), shape)
    place, place_ok = _tile(pl.program_id(0), tiles.places, shape.places)
    output, output_ok = _tile(pl.program_id(1), tiles.outputs, shape.outputs)
    rows = _lhs_rows(place, client, group, shape)

    def add_terms(i, sums):
        term, term_ok = _tile(i, tiles.terms, shape.terms)
        a = _load(x_ref, rows, _lhs_columns(term, shape), place_ok, term_ok)
        b = _load(w_ref, _rhs_rows(term, client, group, shape), output, term_ok, output_ok)
        return sums + _dot(a, b, precision)

    sums = jnp.zeros((tiles.places, tiles.outputs), jnp.float32)
    sums = lax.fori_loop(0, pl.cdiv(shape.terms, tiles.terms), add_terms, sums)
    _store(y_ref, _result_rows(place, client, group, shape), output, place_ok, output_ok, sums)


def _weight_gradient_kernel(
    x_ref, g_ref, part_ref, *, shape: _Shape, tiles: Tiles, steps: int, precision: Any
):
    pairs = shape.clients * shape.groups
    split = pl.program_id(2) // pairs
    client, group = _client_and_group(pl.program_id(2) % pairs, shape)
    term, term_ok = _tile(pl.program_id(0), tiles.terms, shape.terms)
    output, output_ok = _tile(pl.program_id(1), tiles.outputs, shape.outputs)
    columns = _lhs_columns(term, shape)

    def add_places(i, sums):
        place, place_ok = _tile(split * steps + i, tiles.places, shape.places)
        a = _load(x_ref, _lhs_rows(place, client, group, shape), columns, place_ok, term_ok)
        rows = _result_rows(place, client, group, shape)
        g = _load(g_ref, rows, output, place_ok, output_ok)
        return sums + _dot(a.T, g, precision)

    sums = jnp.zeros((tiles.terms, tiles.outputs), jnp.float32)
    sums = lax.fori_loop(0, steps, add_places, sums)
    rows = _rhs_rows(term, split * shape.clients + client, group, shape)
    _store(part_ref, rows, output, term_ok, output_ok, sums)


def _client_and_group(index, shape: _Shape):
    return index // shape.groups, index % shape.groups


def _tile(block, size: int, bound: int):
    """Indices of one block, and which of them exist."""
    index = block * size + lax.iota(jnp.int32, size)
    return index, index < bound


def _lhs_rows(place, client, group, shape: _Shape):
    start = client * shape.client_step + group * shape.inputs
    return start + _linear(place, shape.place_sizes, shape.place_steps)


def _lhs_columns(term, shape: _Shape):
    taps = _linear(term // shape.inputs, shape.tap_sizes, shape.tap_steps)
    return taps + term % shape.inputs


def _rhs_rows(term, client, group, shape: _Shape):
    taps = math.prod(shape.tap_sizes)
    tap, channel = term // shape.inputs, term % shape.inputs
    row = ((client * taps + tap) * shape.groups + group) * shape.inputs + channel
    return row * shape.outputs


def _result_rows(place, client, group, shape: _Shape):
    return ((client * shape.places + place) * shape.groups + group) * shape.outputs


def _linear(index, sizes: tuple[int, ...], steps: tuple[int, ...]):
    """Offset in memory of the elements with row-major numbers `index`."""
    offset = jnp.zeros_like(index)
    for size, step in zip(sizes[::-1], steps[::-1], strict=True):
        offset += (index % size) * step
        index = index // size
    return offset


def _load(ref, rows, columns, rows_ok, columns_ok):
    mask = rows_ok[:, None] & columns_ok[None, :]
    # Elements that do not exist read element 0, and count as 0.
    index = jnp.where(mask, rows[:, None] + columns[None, :], 0)
    return plgpu.load(ref.at[index], mask=mask, other=np.zeros((), ref.dtype))


def _store(ref, rows, columns, rows_ok, columns_ok, value):
    mask = rows_ok[:, None] & columns_ok[None, :]
    # The index behind the end: the interpreter writes the old value to where the mask is off.
    index = jnp.where(mask, rows[:, None] + columns[None, :], ref.shape[0])
    plgpu.store(ref.at[index], value.astype(ref.dtype), mask=mask)


def _dot(a, b, precision):
    a, b = (x.astype(jnp.promote_types(a.dtype, b.dtype)) for x in (a, b))
    return lax.dot_general(
        a, b, (((1,), (0,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )

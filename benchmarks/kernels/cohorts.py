"""What happens to the updates of a cohort: clipping, order statistics, rotation, packing, masks."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.benchmark import Benchmark, Bound, Cost, Function, cost_of, normal, size_of
from fedjax_med_kernels import (
    clip_and_sum,
    masks,
    order_statistics,
    quantization,
    walsh_hadamard,
)
from fedjax_med_kernels.clip_and_sum import cases as clips
from fedjax_med_kernels.clip_and_sum.reference import clip_and_sum_reference
from fedjax_med_kernels.masks import cases as mask_cases
from fedjax_med_kernels.masks.reference import masks_sum_reference
from fedjax_med_kernels.order_statistics import cases as orders
from fedjax_med_kernels.order_statistics.reference import median_reference, trimmed_mean_reference
from fedjax_med_kernels.quantization import cases as quantizations
from fedjax_med_kernels.walsh_hadamard import cases as transforms

CLIPS = list(clips.LARGE)
ORDERS = [f"{f}/{name}" for f in ("coordinate_median", "trimmed_mean") for name in orders.LARGE]
TRANSFORMS = list(transforms.LARGE)
_BITS = (3, 8)
QUANTIZATIONS = [f"quantize/{name}" for name in quantizations.LARGE] + [
    f"{f}-{bits}-bits/{name}"
    for f in ("pack", "unpack")
    for bits in _BITS
    for name in quantizations.LARGE
]
# The unrolled network of a trimmed mean of more clients compiles for minutes.
_MOST_UNROLLED = 64
MASKS = list(mask_cases.LARGE)
# ChaCha20: 80 quarter rounds of 4 additions, 4 exclusive ors and 4 rotations for 16 words, which
# are added to the initial state, multiplied by their coefficient and added to the sum.
_OPERATIONS_PER_BLOCK = 80 * 12 + 16 * 3
_CHECKED_WORDS = 48


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def clipping(name: str, clients: int) -> Benchmark:
    """`clip_and_sum` of `[clients, dim]` updates; the case says how many clients."""
    del clients
    case = clips.LARGE[name]
    updates = normal((case.clients, case.dim), 0)
    weight = jnp.linspace(1.0, 2.0, case.clients)
    # About half of the clients are clipped.
    max_norm = jnp.float32(case.dim**0.5)

    def kernel(implementation: str) -> Function:
        def call(updates, weight, max_norm):
            return clip_and_sum.clip_and_sum(
                updates,
                weight,
                max_norm,
                implementation=implementation,  # type: ignore[arg-type]
            ).total

        return call

    def gradient_sizes(cotangent, updates, weight, max_norm):
        """The sum, and by the updates the two terms of the gradient, which have opposite signs."""
        total, norm, factor = clip_and_sum_reference(updates, weight, max_norm)
        share = (weight * factor)[:, None]
        inner = jnp.sum(updates * cotangent[None], axis=1) / norm**2
        return total, share * (cotangent[None] + inner[:, None] * updates)

    names = ["dot", "scan"]
    if _on_gpu() and case.dim <= 16_384:
        names.append("pallas_gpu")
    implementations = {key: kernel(key) for key in names}
    implementations["copy"] = lambda *arguments: clip_and_sum_reference(*arguments)[0]
    arguments = (updates, weight, max_norm)
    sums = case.clients + case.dim
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="copy",
        default=clip_and_sum.default_implementation(updates.dtype),
        cost=cost_of(
            implementations["copy"],
            arguments,
            (0,),
            4.0 * case.clients * case.dim,
            "4 per parameter of a client: square and sum, scale and sum; as many for the gradient",
        ),
        bound=Bound((sums, 4 * sums), absolute=(0, 1), gradient_sizes=gradient_sizes),
        differentiated=(0,),
    )


def order_statistic(name: str, clients: int) -> Benchmark:
    """Coordinate-wise median and trimmed mean of `[clients, dim]`; the case says how many."""
    del clients
    function, _, case_name = name.partition("/")
    case = orders.LARGE[case_name]
    arguments = (normal((case.clients, case.dim), 0),)
    trim = case.clients // 10
    names = ["network", "stages", "sort"]
    if function == "trimmed_mean" and case.clients > _MOST_UNROLLED:
        names.remove("network")
    if _on_gpu() and case.clients <= 64:
        names.append("pallas_gpu")
    if function == "coordinate_median":
        ours = {
            key: partial(order_statistics.coordinate_median, implementation=key)  # type: ignore[arg-type]
            for key in names
        }
        plain = lambda x: jnp.median(x, axis=0)
    else:
        ours = {
            key: partial(order_statistics.trimmed_mean, trim=trim, implementation=key)  # type: ignore[arg-type]
            for key in names
        }
        plain = lambda x: jnp.mean(jnp.sort(x, axis=0)[trim : case.clients - trim], axis=0)
    implementations: dict[str, Function] = {**ours, "library": plain}
    comparisons = math.log2(case.clients) * case.clients * case.dim
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="library",
        default=order_statistics.default_implementation(
            "median" if function == "coordinate_median" else "trimmed_mean", case.clients
        ),
        cost=cost_of(
            plain,
            arguments,
            (),  # nobody differentiates an aggregation
            comparisons,
            "clients x log2(clients) comparisons per coordinate",
        ),
        check=partial(_check_order, function, trim),
    )


def _check_order(function: str, trim: int, result, arguments) -> str | None:
    x = np.asarray(arguments[0])
    valid = np.ones(len(x), bool)
    median = function == "coordinate_median"
    want = median_reference(x, valid) if median else trimmed_mean_reference(x, valid, trim)
    error = np.abs(np.asarray(result, np.float64) - want)
    allowed = (2 if median else len(x)) * float(np.finfo(np.float32).eps) * np.abs(x).max(axis=0)
    return None if np.all(error <= allowed) else f"off by {error.max():.3g}"


def radix_2(x: jax.Array) -> jax.Array:
    """The Walsh-Hadamard transform of an axis of `2**k` elements, as one would write it."""
    *batch, size = x.shape
    width = 1
    while width < size:
        pairs = x.reshape(*batch, size // (2 * width), 2, width)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        x = jnp.stack([a + b, a - b], axis=-2).reshape(*batch, size)
        width *= 2
    return x


def transform(name: str, clients: int) -> Benchmark:
    """The Walsh-Hadamard transform; the case says how many rows."""
    del clients
    shape = transforms.LARGE[name]
    arguments = (normal(shape, 0),)
    stages = shape[-1].bit_length() - 1
    implementations: dict[str, Function] = {
        key: partial(walsh_hadamard.walsh_hadamard, implementation=key)  # type: ignore[arg-type]
        for key in ("butterfly", "mixed", "kronecker")
    }
    implementations["radix-2"] = radix_2
    # A dense factor of 2**7 is seven stages at once, whose sums have 2**7 terms.
    terms = 128 * -(-stages // 7)
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="radix-2",
        default=walsh_hadamard.default_implementation(jax.default_backend()),
        cost=cost_of(
            radix_2,
            arguments,
            (0,),
            float(math.prod(shape) * stages),
            "an addition per element and stage of radix 2; as many for the gradient",
        ),
        bound=Bound((terms, terms), products=True),
        check=partial(_check_transform, terms),
        differentiated=(0,),
    )


def _check_transform(terms: int, result, arguments) -> str | None:
    """Against radix 2 in float64; every sum has the sizes of a whole row."""
    x = np.asarray(arguments[0], np.float64)
    unit = terms * float(np.finfo(np.float32).eps) + (
        2.0**-9 if jax.default_backend() != "cpu" else 0
    )
    # The transform is its own transpose, so the gradient at a cotangent of ones is that of ones.
    for got, source in zip(jax.tree.leaves(result), (x, np.ones_like(x)), strict=False):
        with jax.enable_x64(True):
            want = np.asarray(jax.jit(radix_2)(jnp.asarray(source)))
        allowed = unit * np.abs(source).sum(axis=-1, keepdims=True)
        error = np.abs(np.asarray(got, np.float64) - want)
        if not np.all(error <= allowed):
            return f"off by {error.max():.3g}, allowed is {allowed.min():.3g}"
    return None


def quantize(name: str, clients: int) -> Benchmark:
    """Quantization, packing and unpacking of one update per client."""
    function, _, case_name = name.partition("/")
    size = quantizations.LARGE[case_name]
    if function == "quantize":
        return _quantize(size, clients)
    kind, bits_text, _ = function.split("-")
    bits = int(bits_text)
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.integers(0, 2**bits, (clients, size)), jnp.uint8)
    words = quantization.pack(codes, bits)
    if kind == "pack":
        arguments = (codes,)
        ours: Function = partial(quantization.pack, bits=bits)
        plain: Function = partial(pack_by_bits, bits=bits)
    else:
        arguments = (words,)
        ours = partial(quantization.unpack, bits=bits, length=size)
        plain = partial(unpack_by_bits, bits=bits, length=size)
    return Benchmark(
        arguments=arguments,
        implementations={"kernel": ours, "bit-by-bit": plain},
        plain="bit-by-bit",
        default="kernel",
        cost=cost_of(
            plain,
            arguments,
            (),
            2.0 * clients * size,
            "a shift and an or per code, on integers",
            integers=True,
        ),
        bound=Bound((0,)),
    )


def pack_by_bits(codes: jax.Array, bits: int) -> jax.Array:
    """What `pack` is defined to do, by its bits one by one."""
    batch, length = codes.shape
    group, words = 32 // math.gcd(bits, 32), bits // math.gcd(bits, 32)
    columns = -(-length // group)
    padded = jnp.pad(codes, ((0, 0), (0, group * columns - length))).astype(jnp.uint32)
    of_column = padded.reshape(batch, group, columns).transpose(0, 2, 1)
    each = (of_column[..., None] >> _places(bits)) & jnp.uint32(1)
    stream = each.reshape(batch, columns, words, 32) << _places(32)
    return jnp.sum(stream, axis=-1, dtype=jnp.uint32).transpose(0, 2, 1).reshape(batch, -1)


def unpack_by_bits(words: jax.Array, bits: int, length: int) -> jax.Array:
    """What `unpack` is defined to do, by its bits one by one."""
    batch = words.shape[0]
    group, of_group = 32 // math.gcd(bits, 32), bits // math.gcd(bits, 32)
    of_column = words.reshape(batch, of_group, -1).transpose(0, 2, 1)
    each = (of_column[..., None] >> _places(32)) & jnp.uint32(1)
    each = each.reshape(batch, -1, group, bits) << _places(bits)
    codes = jnp.sum(each, axis=-1, dtype=jnp.uint32).astype(jnp.uint8)
    return codes.transpose(0, 2, 1).reshape(batch, -1)[:, :length]


def _places(bits: int) -> jax.Array:
    return jnp.arange(bits, dtype=jnp.uint32).reshape(1, 1, 1, bits)


def _quantize(size: int, clients: int) -> Benchmark:
    levels = 16
    data = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, 2), jnp.uint32)
    x = jnp.clip(normal((clients, size), 1), -3, 3)

    def ours(data: jax.Array, x: jax.Array) -> jax.Array:
        return quantization.quantize(jax.random.wrap_key_data(data), x, -3.0, 3.0, levels)

    def plain(data: jax.Array, x: jax.Array) -> jax.Array:
        scaled = (x + 3) / 6 * (levels - 1)
        draws = jax.random.uniform(jax.random.wrap_key_data(data), x.shape)
        codes = jnp.floor(scaled) + (draws < scaled - jnp.floor(scaled))
        return jnp.clip(codes, 0, levels - 1).astype(jnp.uint8)

    arguments = (data, x)
    return Benchmark(
        arguments=arguments,
        implementations={"kernel": ours, "uniform": plain},
        plain="uniform",
        default="kernel",
        cost=cost_of(plain, arguments, (), 8.0 * x.size, "8 per value, without the random bits"),
        check=partial(_check_quantized, levels),
    )


def _check_quantized(levels: int, result, arguments) -> str | None:
    """Every value goes to one of its two neighbours, and to both in the right proportion."""
    x = np.asarray(arguments[1], np.float64)
    scaled = (x + 3) / 6 * (levels - 1)
    error = np.asarray(result, np.float64) - scaled
    if not np.all(np.abs(error) < 1 + 1e-5):
        return "a value went to no neighbouring level"
    part = scaled - np.floor(scaled)
    deviation = math.sqrt(float((part * (1 - part)).sum())) / error.size
    if abs(error.mean()) > 6 * deviation + 1e-6:
        return f"biased by {error.mean():.3g}, standard deviation {deviation:.3g}"
    return None


def mask(name: str, clients: int) -> Benchmark:
    """The mask of one client: the signed sum of its keystreams."""
    del clients
    case = mask_cases.LARGE[name]
    rng = np.random.default_rng(0)
    keys = jnp.asarray(rng.integers(0, 2**32, (case.keys, 8)), jnp.uint32)
    coefficient = jnp.asarray(rng.choice([-1, 1], case.keys), jnp.int32)
    nonce = jnp.asarray(rng.integers(0, 2**32, 3), jnp.uint32)
    implementations: dict[str, Function] = {
        key: lambda k, c, n, key=key: masks.sum_of_masks(
            k,
            c,
            n,
            case.words,
            implementation=key,  # type: ignore[arg-type]
        )
        for key in ("xla", *(("pallas_gpu",) if _on_gpu() else ()))
    }

    def stacked(keys: jax.Array, coefficient: jax.Array, nonce: jax.Array) -> jax.Array:
        streams = jax.vmap(lambda key: masks.keystream(key, nonce, case.words))(keys)
        return jnp.sum(coefficient.astype(jnp.uint32)[:, None] * streams, axis=0, dtype=jnp.uint32)

    implementations["stacked"] = stacked
    arguments = (keys, coefficient, nonce)
    blocks = -(-case.words // 16)
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="stacked",
        default="xla",
        cost=Cost(
            float(blocks * case.keys * _OPERATIONS_PER_BLOCK),
            None,
            float(size_of(arguments) + 4 * case.words),
            None,
            f"{_OPERATIONS_PER_BLOCK} integer operations per key and block of 16 words",
            integers=True,
        ),
        bound=Bound((0,)),
        check=_check_mask,
    )


def _check_mask(result, arguments) -> str | None:
    """Its first blocks against ChaCha20 in plain Python."""
    got = np.asarray(result)
    few = min(_CHECKED_WORDS, got.size)
    want = masks_sum_reference(*map(np.asarray, arguments), few)  # type: ignore[arg-type]
    return None if np.array_equal(got[:few], want) else "differs from ChaCha20"

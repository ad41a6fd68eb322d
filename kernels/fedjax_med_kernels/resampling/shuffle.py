"""Transposed convolution as one convolution of stride 1 and a pixel shuffle.

With stride `s` along an axis, output `m * s + r` sees the taps `t * s + r` only. A kernel of `k`
taps, filled up with zeros to `T * s`, is therefore a kernel of `T` taps with `s` times the
outputs; its results, interleaved, are the transposed convolution. Where the kernel is as wide as
the stride, as in most U-Nets, `T` is 1 and all of it is one matrix product.

References:
  Shi et al., CVPR 2016, "Real-time single image and video super-resolution using an efficient
  sub-pixel convolutional neural network", equations 3 and 4. https://arxiv.org/abs/1609.05158
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fedjax_med_kernels.convolution import conv_general_dilated
from fedjax_med_kernels.resampling.geometry import Upsampling


def unsupported(problem: Upsampling, dtype) -> str | None:
    """Why a transposed convolution has no such form, None if it has."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return f"it takes floats, not {jnp.dtype(dtype).name}"
    if any(d > 1 for d in problem.kernel_dilation):
        return f"the kernel is dilated by {problem.kernel_dilation}"
    return None


def convolve(lhs: jax.Array, rhs: jax.Array, problem: Upsampling) -> jax.Array:
    """The transposed convolution of `problem`; see `transposed.transposed_convolution`."""
    numbers, groups, dims = problem.numbers, problem.groups, len(problem.strides)
    x = lhs.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    w = rhs.transpose(*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    z = _convolve_phases(x, _kernel_of_phases(w, problem), problem)

    # [batch, *sizes, groups, *strides, outputs / groups] -> the strides behind their sizes.
    sizes = z.shape[1 : 1 + dims]
    z = z.reshape(z.shape[0], *sizes, groups, *problem.strides, -1)
    pairs = [axis for i in range(dims) for axis in (1 + i, 2 + dims + i)]
    z = z.transpose(0, *pairs, 1 + dims, 2 + 2 * dims)
    fine = [n * s for n, s in zip(sizes, problem.strides, strict=True)]
    y = z.reshape(z.shape[0], *fine, -1)

    config = [(0, 0, 0)]
    for n, out, k, (low, _) in zip(
        fine, problem.output_size, problem.kernel_size, problem.padding, strict=True
    ):
        before = low - (k - 1)
        config.append((before, out - n - before, 0))
    y = lax.pad(y, jnp.zeros((), y.dtype), [*config, (0, 0, 0)])
    order = (0, dims + 1, *range(1, dims + 1))
    return y.transpose([order[i] for i in np.argsort(numbers.out_spec)])


def _kernel_of_phases(w: jax.Array, problem: Upsampling) -> jax.Array:
    """`[*taps, inputs, groups * strides * outputs]` of a kernel `[*size, inputs, outputs]`."""
    dims, strides = len(problem.strides), problem.strides
    taps = problem.taps_per_phase
    before = [t * s - k for t, s, k in zip(taps, strides, problem.kernel_size, strict=True)]
    w = lax.pad(w, jnp.zeros((), w.dtype), [*((b, 0, 0) for b in before), (0, 0, 0), (0, 0, 0)])
    split = [n for pair in zip(taps, strides, strict=True) for n in pair]
    inputs, outputs = w.shape[-2:]
    w = w.reshape(*split, inputs, problem.groups, outputs // problem.groups)
    # In a cross-correlation the last tap of a stride belongs to its first phase.
    w = lax.rev(w, tuple(range(1, 2 * dims, 2)))
    w = w.transpose(
        *range(0, 2 * dims, 2), 2 * dims, 2 * dims + 1, *range(1, 2 * dims, 2), 2 * dims + 2
    )
    return w.reshape(*taps, inputs, outputs * math.prod(strides))


def _convolve_phases(x: jax.Array, w: jax.Array, problem: Upsampling) -> jax.Array:
    taps = problem.taps_per_phase
    if problem.groups == 1 and all(t == 1 for t in taps):
        # [positions, channels] as one large matrix: with more axes XLA transposes operands.
        dtype = x.dtype if problem.dtype is None else jnp.dtype(problem.dtype)
        z = lax.dot(
            x.reshape(-1, x.shape[-1]),
            w.reshape(w.shape[-2:]),
            precision=problem.precision,
            preferred_element_type=jnp.promote_types(dtype, jnp.float32),
        )
        return z.reshape(*x.shape[:-1], -1).astype(dtype)
    last = len(taps) + 1
    spec = (0, last, *range(1, last))
    return conv_general_dilated(
        x,
        w,
        window_strides=(1,) * len(taps),
        padding=[(t - 1, t - 1) for t in taps],
        dimension_numbers=lax.ConvDimensionNumbers(spec, (last, last - 1, *range(last - 1)), spec),
        feature_group_count=problem.groups,
        precision=problem.precision,
        preferred_element_type=problem.dtype,
    )

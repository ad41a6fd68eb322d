"""The gradient by the lhs as convolutions of the cotangent, one for every phase of the strides.

With stride `s`, dilation `d` and kernel size `k`, element `i` of the padded lhs has the gradient

    dx[i] = sum over taps t, with t * d <= i and (i - t * d) divisible by s, of
            g[(i - t * d) / s] * w[t]

For all `i = q * s + r` of one phase `r` these are the same taps, an arithmetic progression, so that
their gradients are a convolution of `g` with stride 1. No product with a zero is computed, and
nothing but slices and sums of products is asked of the implementation. (The decomposition is that
of polyphase filters: Vaidyanathan, Proc. IEEE 78(1), 1990, section II.)
"""

import itertools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from fedjax_med_kernels.convolution.window import Window, unpadded


def input_gradient(
    forward: Callable[[Array, Array, Window], Array], g: Array, w: Array, window: Window
) -> Array:
    """The gradient by the lhs.

    Args:
      forward: the convolution of a lhs and a rhs in the common layout of `window.py`.
      g: cotangent of the result, `[clients, batch, *output size, groups, outputs]`.
      w: rhs, `[clients, *kernel size, groups, inputs, outputs]`.
      window: geometry of the convolution whose gradient this is.

    Returns:
      `[clients, batch, *input size, groups, inputs]`.
    """
    strides, sizes = window.strides, window.padded_size
    lengths = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]  # of the longest phase
    weights = w.swapaxes(-1, -2)
    phases = [
        _phase(forward, g, weights, window, phase, lengths)
        for phase in itertools.product(*(range(s) for s in strides))
    ]
    if len(phases) == 1:
        dx = phases[0]
    else:
        dx = _interleave(jnp.stack(phases, axis=2), strides, lengths)
    dx = lax.slice(dx, (0,) * dx.ndim, (*dx.shape[:2], *sizes, *dx.shape[-2:]))
    return unpadded(dx, window)


def _phase(
    forward: Callable[[Array, Array, Window], Array],
    g: Array,
    weights: Array,
    window: Window,
    phase: tuple[int, ...],
    lengths: list[int],
) -> Array:
    """Gradients of the elements `q * strides + phase` for `q < lengths`."""
    taps, padding, dilation = [], [], []
    for r, s, d, k, m, length in zip(
        phase,
        window.strides,
        window.rhs_dilation,
        window.kernel_size,
        window.output_size,
        lengths,
        strict=True,
    ):
        of_phase = [t for t in range(k) if (t * d - r) % s == 0]
        if not of_phase:
            return jnp.zeros((*g.shape[:2], *lengths, g.shape[-2], weights.shape[-1]), g.dtype)
        spread = d // math.gcd(s, d)
        # The last tap of the phase comes first, and looks furthest back into g.
        low = (of_phase[-1] * d - r) // s
        high = length + (len(of_phase) - 1) * spread - low - m
        taps.append(np.array(of_phase[::-1]))
        padding.append((low, high))
        dilation.append(spread)
    for axis, index in enumerate(taps, start=1):
        step = int(index[0] - index[1]) if len(index) > 1 else 1
        weights = lax.slice_in_dim(weights, int(index[-1]), int(index[0]) + 1, step, axis)
    flipped = lax.rev(weights, tuple(range(1, 1 + len(taps))))
    return forward(
        g,
        flipped,
        Window(
            input_size=window.output_size,
            kernel_size=tuple(len(index) for index in taps),
            strides=(1,) * len(taps),
            padding=tuple(padding),
            lhs_dilation=(1,) * len(taps),
            rhs_dilation=tuple(dilation),
        ),
    )


def _interleave(phases: Array, strides: tuple[int, ...], lengths: list[int]) -> Array:
    """`[clients, batch, phases, *lengths, groups, inputs]` with the phases of every axis in turn."""
    clients, batch, _, *_, groups, inputs = phases.shape
    dims = len(strides)
    x = phases.reshape(clients, batch, *strides, *lengths, groups, inputs)
    in_turn = [axis for i in range(dims) for axis in (2 + dims + i, 2 + i)]
    x = x.transpose(0, 1, *in_turn, 2 + 2 * dims, 3 + 2 * dims)
    size = [s * n for s, n in zip(strides, lengths, strict=True)]
    return x.reshape(clients, batch, *size, groups, inputs)

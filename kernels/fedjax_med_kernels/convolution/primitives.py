"""A convolution and its two gradients as three primitives, closed under differentiation.

With `T(x, w, g) = sum(g * convolution(x, w))`, linear in each of its three arguments, all three are
derivatives of `T`, and so are all derivatives of theirs:

    convolution(x, w)      by x: input_gradient(g, w)     by w: weight_gradient(x, g)
    input_gradient(g, w)   by g: convolution(x, w)        by w: weight_gradient(x, g)
    weight_gradient(x, g)  by x: input_gradient(g, w)     by g: convolution(x, w)

Hence forward mode, reverse mode and any order of them come out of JAX's rules for bilinear
primitives, residuals are the arguments and never the patches, and every implementation may compute
each of the three as it likes. A custom VJP would allow neither `jax.jvp` nor `jax.linearize`.

`vmap` enlarges an axis of the common layout (`window.py`): that of the clients if both operands
are mapped, otherwise a free axis of the mapped one. So shared weights stay one large product.

Which implementation runs, if none is named, is decided when a program is lowered for a device: only
then are the device and the number of clients known.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from fedjax_med_kernels.convolution.selection import Implementation, choose, device_kind
from fedjax_med_kernels.convolution.window import Problem

convolution_p = Primitive("client_convolution")
input_gradient_p = Primitive("client_convolution_input_gradient")
weight_gradient_p = Primitive("client_convolution_weight_gradient")

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def _convolution_shape(x: Any, w: Any, window: Any) -> tuple[int, ...]:
    return (*x.shape[:2], *window.output_size, w.shape[-3], w.shape[-1])


def _input_gradient_shape(g: Any, w: Any, window: Any) -> tuple[int, ...]:
    return (*g.shape[:2], *window.input_size, *w.shape[-3:-1])


def _weight_gradient_shape(x: Any, g: Any, window: Any) -> tuple[int, ...]:
    return (x.shape[0], *window.kernel_size, *x.shape[-2:], g.shape[-1])


def _evaluate(
    a: Array,
    b: Array,
    *,
    primitive: Primitive,
    shape: Callable[..., tuple[int, ...]],
    platform: str,
    window: Any,
    implementation: Implementation | None,
    precision: Any,
    dtype: Any,
) -> Array:
    """Runs an implementation; traced while lowering, so all shapes are those of the program."""
    out_shape = shape(a, b, window)
    if a.size == 0 or b.size == 0 or 0 in out_shape:
        return jnp.zeros(out_shape, dtype)
    if implementation is None:
        problem = _problem(primitive, a, b, window)
        implementation = choose(problem, platform, device_kind(platform)).implementation
    compute = {
        convolution_p: implementation.forward,
        input_gradient_p: implementation.input_gradient,
        weight_gradient_p: implementation.weight_gradient,
    }[primitive]
    with jax.named_scope(f"{primitive.name}_{implementation.name}"):
        return compute(a, b, window, precision, dtype)


def _problem(primitive: Primitive, a: Array, b: Array, window: Any) -> Problem:
    outputs = b.shape[-1] if primitive is not input_gradient_p else a.shape[-1]
    inputs = b.shape[-2] if primitive is not weight_gradient_p else a.shape[-1]
    return Problem(a.shape[0], a.shape[1], a.shape[-2], inputs, outputs, window, a.dtype)


def _mapped(primitive: Primitive, free: tuple[int, int, int, int], args, dims, **params):
    """Moves a mapped axis into the clients, or into a free axis of the one mapped operand.

    Args:
      primitive: one of the three.
      free: free axis of the first operand and where it is in the result, and the same of the
        second; counted from the end if negative.
      args: operands.
      dims: mapped axis of each operand, or None.
      **params: parameters of the primitive.
    """
    a, b = args
    if dims[0] is not None and dims[1] is not None:
        size = a.shape[dims[0]]
        a, b = (_merge(x, dim, 0) for x, dim in zip(args, dims, strict=True))
        return _split(primitive.bind(a, b, **params), size, 0)
    a_axis, a_out, b_axis, b_out = free
    if dims[1] is None:
        size, out = a.shape[dims[0]], a_out
        a = _merge(a, dims[0], a_axis)
    else:
        size, out = b.shape[dims[1]], b_out
        b = _merge(b, dims[1], b_axis)
    return _split(primitive.bind(a, b, **params), size, out)


def _merge(x: Array, mapped: int, axis: int) -> Array:
    """Makes the mapped axis the slower part of another; `axis` counts without the mapped one."""
    axis %= x.ndim - 1
    x = jnp.moveaxis(x, mapped, axis)
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def _split(x: Array, size: int, axis: int) -> tuple[Array, int]:
    """Undoes `_merge` on a result; returns it and the place of its mapped axis."""
    axis %= x.ndim
    shape = (*x.shape[:axis], size, x.shape[axis] // size, *x.shape[axis + 1 :])
    return x.reshape(shape), axis


def _define(
    primitive: Primitive,
    shape: Callable[..., tuple[int, ...]],
    free: tuple[int, int, int, int],
    transpose_a: Callable,
    transpose_b: Callable,
) -> None:
    def abstract(a, b, *, window, dtype, **_):
        out = shape(a, b, window)
        spec = jax.sharding.PartitionSpec(*(None,) * len(out))
        # `update` keeps along which axes of a `shard_map` the operands vary.
        return a.update(
            shape=out, dtype=dtype, weak_type=False, sharding=a.sharding.update(spec=spec)
        )

    primitive.def_abstract_eval(abstract)
    primitive.def_impl(partial(_eager, primitive))
    batching.primitive_batchers[primitive] = partial(_mapped, primitive, free)
    ad.defbilinear(primitive, transpose_a, transpose_b)
    for platform in PLATFORMS:
        evaluate = partial(_evaluate, primitive=primitive, shape=shape, platform=platform)
        rule = mlir.lower_fun(evaluate, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)


@partial(jax.jit, static_argnames=("primitive", "window", "implementation", "precision", "dtype"))
def _bind(a: Array, b: Array, primitive: Primitive, **params: Any) -> Array:
    return primitive.bind(a, b, **params)


def _eager(primitive: Primitive, a: Array, b: Array, **params: Any) -> Array:
    return _bind(a, b, primitive=primitive, **params)


def _convolution(x, w, params, like):
    return convolution_p.bind(x, w, **(params | {"dtype": like.aval.dtype}))


def _input_gradient(g, w, params, like):
    return input_gradient_p.bind(g, w, **(params | {"dtype": like.aval.dtype}))


def _weight_gradient(x, g, params, like):
    return weight_gradient_p.bind(x, g, **(params | {"dtype": like.aval.dtype}))


# Free axes: the batch of x, g and dx is axis 1; channels come last, inputs of w last but one.
_define(
    convolution_p,
    _convolution_shape,
    (1, 1, -1, -1),
    lambda ct, x, w, **params: _input_gradient(ct, w, params, like=x),
    lambda ct, x, w, **params: _weight_gradient(x, ct, params, like=w),
)
_define(
    input_gradient_p,
    _input_gradient_shape,
    (1, 1, -2, -1),
    lambda ct, g, w, **params: _convolution(ct, w, params, like=g),
    lambda ct, g, w, **params: _weight_gradient(ct, g, params, like=w),
)
_define(
    weight_gradient_p,
    _weight_gradient_shape,
    (-1, -2, -1, -1),
    lambda ct, x, g, **params: _input_gradient(g, ct, params, like=x),
    lambda ct, x, g, **params: _convolution(x, ct, params, like=g),
)

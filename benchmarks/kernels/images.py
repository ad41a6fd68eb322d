"""Convolution, pooling and upsampling: each client has its own images and weights."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.kernels.benchmark import Benchmark, Bound, Function, cost_of, normal
from fedjax_med_kernels import convolution as conv
from fedjax_med_kernels import pooling, resampling
from fedjax_med_kernels.convolution import cases as convolutions
from fedjax_med_kernels.pooling import cases as poolings
from fedjax_med_kernels.pooling.geometry import axes_of
from fedjax_med_kernels.resampling import cases as resamplings

CONVOLUTIONS = list(convolutions.REAL_CASES)
POOLINGS = [
    f"{function}/{name}" for function in ("max_pool", "avg_pool") for name in poolings.MODELS
]
_INTERPOLATED = ("unet-2d", "unet-3d", "ecg")
RESAMPLINGS = [f"conv_transpose/{name}" for name in resamplings.MODELS] + [
    f"{function}/{name}"
    for function in ("upsample_nearest", "upsample_linear")
    for name in _INTERPOLATED
]


def _vmapped(functions: dict[str, Function]) -> dict[str, Function]:
    return {name: jax.vmap(function) for name, function in functions.items()}


def convolution(name: str, clients: int) -> Benchmark:
    """`conv_general_dilated` with an image batch and a kernel of each client's own."""
    case = convolutions.REAL_CASES[name]
    lhs, rhs = case.shapes()
    arguments = (normal((clients, *lhs.shape), 0), normal((clients, *rhs.shape), 1))
    made: dict[str, Any] = {
        "patches": conv.Patches(),
        "shifted": conv.Shifted(),
        "winograd": conv.Winograd(),
    }
    if jax.default_backend() == "gpu":
        made["pallas_gpu"] = conv.PallasGpu()
    functions: dict[str, Function] = {
        key: partial(conv.conv_general_dilated, **case.arguments, implementation=implementation)
        for key, implementation in made.items()
    }
    # What users write: the library, differentiated by JAX.
    functions["library"] = partial(lax.conv_general_dilated, **case.arguments)
    implementations = _vmapped(functions)
    problem = jax.eval_shape(implementations["library"], *arguments)
    taps, groups = math.prod(case.kernel), case.groups
    # Zeros between the elements of a dilated lhs are not multiplied by its definition.
    places = problem.size // case.outputs // math.prod(case.lhs_dilation or (1,))
    operations = 2.0 * places * taps * (case.inputs // groups) * case.outputs
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="library",
        default=_chosen_convolution(case, lhs, rhs, clients),
        cost=cost_of(
            implementations["library"],
            arguments,
            (0, 1),
            operations,
            "2 x places x taps x inputs per group x outputs, as much again for each gradient",
            gradient_factor=3,
        ),
        bound=Bound(
            (taps * case.inputs // groups, taps * case.outputs // groups, problem.size // clients),
            absolute=(0, 1),
            # Absolute values of a row of B, G and A add up to 2, 3/2 and 3 in every dimension.
            growth={"winograd": 9.0 ** len(case.kernel)},
            products=True,
        ),
        differentiated=(0, 1),
        per_client=True,
    )


def _chosen_convolution(case: Any, lhs: Any, rhs: Any, clients: int) -> str | None:
    """The name of the implementation that runs where none is named; None if nobody says."""
    a = case.arguments
    problem = conv.convolution_problem(lhs, rhs, **a)
    platform = "cuda" if jax.default_backend() == "gpu" else jax.default_backend()
    try:
        kind = jax.devices()[0].device_kind
        return conv.choose(problem._replace(clients=clients), platform, kind).name
    except ValueError:
        return None  # no rule for this platform


def pool(name: str, clients: int) -> Benchmark:
    """Maximum and mean pooling of each client's own images."""
    function, _, case_name = name.partition("/")
    case = poolings.MODELS[case_name]
    window = (case.window, case.strides, case.padding, case.base_dilation, case.window_dilation)
    arguments = (normal((clients, *case.shape), 0),)
    make = {"max_pool": pooling.max_pool, "avg_pool": pooling.avg_pool}[function]
    functions: dict[str, Function] = {
        key: lambda x, key=key: make(x, *window, implementation=key)
        for key in ("separable", "library")
    }
    implementations = _vmapped(functions)
    out = jax.eval_shape(implementations["library"], *arguments)
    elements = math.prod(case.window)
    axes = axes_of(case.shape, *window)
    reduction = "extremum" if function == "max_pool" else "sum"
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="library",
        default=pooling.choose(reduction, arguments[0].dtype, axes)[0],
        cost=cost_of(
            implementations["library"],
            arguments,
            (0,),
            float(out.size * elements),
            "one comparison or addition per element of a window, one more for the gradient",
        ),
        # A maximum rounds nothing; its gradient adds up what overlapping windows give.
        bound=Bound((elements if function == "avg_pool" else 0, elements), absolute=())
        if function == "max_pool"
        else Bound((elements + 2, elements + 2), absolute=(0,)),
        differentiated=(0,),
        per_client=True,
    )


def resample(name: str, clients: int) -> Benchmark:
    """Transposed convolution and interpolation of each client's own images."""
    function, _, case_name = name.partition("/")
    if function == "conv_transpose":
        return _conv_transpose(case_name, clients)
    case = resamplings.INTERPOLATIONS[case_name]
    arguments = (normal((clients, *case.x), 0),)
    ours = {
        "upsample_nearest": resampling.upsample_nearest,
        "upsample_linear": resampling.upsample_linear,
    }[function]
    method = "nearest" if function == "upsample_nearest" else "linear"
    axes = case.axes or tuple(range(1, 1 + len(case.factors)))
    factor = dict(zip(axes, case.factors, strict=True))
    shape = tuple(n * factor.get(axis, 1) for axis, n in enumerate(case.x))
    implementations = _vmapped(
        {
            "kernel": lambda x: ours(x, case.factors, case.axes),
            "library": lambda x: jax.image.resize(x, shape, method),
        }
    )
    per_result = 3 * len(axes) if method == "linear" else 0
    results = clients * math.prod(shape)
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="library",
        default="kernel",
        cost=cost_of(
            implementations["library"],
            arguments,
            (0,),
            float(results * per_result),
            "3 per result and axis if linear, none if nearest; the gradient as much again",
        ),
        # The library's weights come from float positions, off by a few units each.
        bound=Bound((16 * len(axes), 16 * math.prod(case.factors) * 2), absolute=(0,)),
        differentiated=(0,),
        per_client=True,
    )


def _conv_transpose(name: str, clients: int) -> Benchmark:
    case = resamplings.MODELS[name]
    arguments = (normal((clients, *case.x), 0), normal((clients, *case.kernel), 1))
    call = partial(
        resampling.conv_transpose,
        strides=case.strides,
        padding=case.padding,
        rhs_dilation=case.dilation,
        feature_group_count=case.groups,
    )
    functions: dict[str, Function] = {
        key: partial(call, implementation=key) for key in ("shuffle", "phases")
    }
    functions["library"] = lambda x, w: lax.conv_transpose(
        x, w, case.strides, case.padding, rhs_dilation=case.dilation
    )
    implementations = _vmapped(functions)
    inputs, outputs = case.x[-1], case.kernel[-1]
    taps = math.prod(case.kernel[:-2])
    out = jax.eval_shape(implementations["library"], *arguments)
    met = -(-taps // math.prod(case.strides))  # taps that meet one result
    return Benchmark(
        arguments=arguments,
        implementations=implementations,
        plain="library",
        default=None,
        cost=cost_of(
            implementations["library"],
            arguments,
            (0, 1),
            2.0 * arguments[0].size * taps * outputs,
            "2 x elements of the input x taps x outputs, as much again for each gradient",
            gradient_factor=3,
        ),
        bound=Bound(
            (2 * met * inputs + 2, taps * outputs, out.size // clients),
            absolute=(0, 1),
            products=True,
        ),
        differentiated=(0, 1),
        per_client=True,
    )


def of_some_clients(arrays: Any, chosen: list[int]) -> Any:
    """The arrays of some clients."""
    return jax.tree.map(lambda x: jnp.take(x, jnp.asarray(chosen), axis=0), arrays)

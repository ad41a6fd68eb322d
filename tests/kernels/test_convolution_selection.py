import json
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedjax_med_kernels.convolution import (
    PallasGpu,
    Patches,
    Shifted,
    choose,
    conv_general_dilated,
    convolution_problem,
)
from fedjax_med_kernels.convolution.cases import CASES, REAL_CASES, ConvolutionCase
from fedjax_med_kernels.convolution.selection import _CONDITIONS, _IMPLEMENTATIONS, device_kind

PLATFORMS = ["cpu", "cuda", "rocm", "tpu"]
SMALL = ConvolutionCase(2, (6, 5), (6, 5), (3, 3), 3, 4)


def problem(case: ConvolutionCase, clients: int = 10):
    arguments = case.arguments
    return convolution_problem(*case.shapes(), **arguments, clients=clients)


def lowered(platform: str, clients: int | None, implementation=None) -> str:
    """The program of a gradient step, as it is handed to the compiler of a platform."""
    lhs, rhs = SMALL.shapes()
    loss = lambda lhs, rhs: jnp.sum(
        conv_general_dilated(lhs, rhs, **SMALL.arguments, implementation=implementation) ** 2
    )
    fn = jax.grad(loss, (0, 1))
    if clients is not None:
        fn = jax.vmap(fn)
        lhs, rhs = (jax.ShapeDtypeStruct((clients, *a.shape), a.dtype) for a in (lhs, rhs))
    return jax.jit(fn).trace(lhs, rhs).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_case_has_a_choice_with_a_reason(platform):
    for case in CASES.values():
        choice = choose(problem(case), platform)
        assert choice.reason.endswith(".") and choice.name == choice.implementation.name


def test_choices_on_a_cpu():
    names = {name: choose(problem(case, 1), "cpu").name for name, case in REAL_CASES.items()}
    shifted = {name for name, used in names.items() if used == "shifted"}
    assert shifted == {"depthwise-2d", "depthwise-1d"}
    many = problem(CASES["unet-3d"], clients=10)
    assert many.patch_bytes > 2**30 and choose(many, "cpu").name == "shifted"
    winograd = {name for name, used in names.items() if used == "winograd"}
    assert winograd == {"cifar-second", "femnist-second", "resnet-3x3", "unet-2d", "unet-3d"}
    assert choose(problem(CASES["cifar-first"], 1), "cpu").implementation == Patches(keep=True)
    assert choose(problem(CASES["cifar-first"], 200), "cpu").implementation == Patches()
    assert choose(problem(CASES["resnet-3x3-strided"], 50), "cpu").name == "shifted"


def test_table_is_complete_and_honest():
    text = resources.files("fedjax_med_kernels.convolution").joinpath("selection.json").read_text()
    rules = json.loads(text)["rules"]
    for rule in rules:
        assert set(rule) == {"platform", "device_kind", "when", "use", "reason", "measured"}
        assert rule["use"] in _IMPLEMENTATIONS and set(rule["when"]) <= set(_CONDITIONS)
        assert rule["measured"] is None or {"device", "jax"} <= set(rule["measured"])
    for platform in PLATFORMS:
        last = [rule for rule in rules if rule["platform"] == platform][-1]
        assert last["when"] == {} and last["device_kind"] is None


def test_the_program_s_device_and_clients_decide():
    assert "stablehlo.convolution" in lowered("cuda", clients=None)
    assert "stablehlo.convolution" in lowered("cuda", clients=1)
    many = lowered("cuda", clients=3)
    assert "stablehlo.convolution" not in many and "dot_general" in many
    assert "stablehlo.convolution" not in lowered("cpu", clients=None)


def test_the_caller_decides_first():
    assert "stablehlo.while" in lowered("cpu", 3, Shifted())
    assert "stablehlo.while" not in lowered("cpu", 3, Patches())


# Deprecated since JAX 0.12, still there; whoever names PallasGpu() is told so by JAX.
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
def test_pallas_gpu_lowers_for_cuda():
    if jax.__version_info__ < (0, 11):
        text = lowered("cuda", 3, PallasGpu())
    else:  # newer versions ask for the kind of the device
        device = jax.sharding.AbstractDevice(
            device_kind="NVIDIA H100", num_cores=132, platform="gpu"
        )
        mesh = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):
            text = lowered("cuda", 3, PallasGpu())
    assert "triton" in text and "stablehlo.dot_general" not in text


def test_unknown_platforms_are_refused():
    with pytest.raises(ValueError, match=r"platform must be one of .*'cpu'.* got 'abacus'"):
        choose(problem(SMALL), "abacus")
    assert device_kind("cpu") is not None and device_kind("tpu") is None


def test_problem_counts_what_is_computed():
    case = CASES["cifar-second"]
    got = problem(case, clients=2)
    places = 10 * 28 * 28
    assert got.flops == 2 * 2 * places * 9 * 32 * 64
    assert got.patch_bytes == 2 * places * 9 * 32 * 4
    assert got.bytes == 2 * 4 * (10 * 30 * 30 * 32 + 9 * 32 * 64 + places * 64)
    assert not got.depthwise and not got.pointwise and got.dtype == np.float32
    # A transposed convolution is the gradient of a strided one: no zeros are counted.
    up = problem(CASES["unet-2d-up"], clients=1)
    assert up.window.strides == (2, 2) and up.window.lhs_dilation == (1, 1)
    assert (up.inputs, up.outputs) == (32, 64)
    assert up.flops == 2 * 4 * 64 * 64 * 4 * 64 * 32

"""Benchmarks of kernels: checked before they are timed, counted by definition, told in full."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import kernels
from benchmarks.kernels import cohorts, command, images, measure, report
from benchmarks.kernels import roofline as limits
from benchmarks.kernels.benchmark import Benchmark, Bound, Cost, result_and_gradients
from fedjax_med.reporting import roofline
from fedjax_med_kernels.pooling import cases as poolings
from fedjax_med_kernels.pooling.cases import PoolingCase
from fedjax_med_kernels.quantization.reference import pack_reference
from fedjax_med_kernels.walsh_hadamard.reference import hadamard_matrix

PEAKS = roofline.Peaks(1e9, 1e8, "float32", (1, 8, 8), 2**20)


@pytest.fixture
def quick(monkeypatch):
    """Short calls and given peaks, so that a test of the command takes no time."""
    monkeypatch.setattr(measure, "CALL_S", 1e-4)
    monkeypatch.setattr(roofline, "measure_peaks", lambda *args: PEAKS)
    monkeypatch.setattr(roofline, "copy_bandwidth", lambda size, **options: 1e9)
    monkeypatch.setattr(limits.Limits, "integer_operations_per_s", 1e9)
    small = {"cifar-cnn": PoolingCase((2, 4, 4, 3), (1, 2, 2, 1), (1, 2, 2, 1))}
    monkeypatch.setattr(poolings, "MODELS", small)
    monkeypatch.setattr(images, "POOLINGS", ["max_pool/cifar-cnn", "avg_pool/cifar-cnn"])


def run(tmp_path, *arguments):
    path = tmp_path / "kernels.jsonl"
    kernels.main([*arguments, "--repeats", "3", "--json", str(path)])
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_per_pass_and_implementation(quick, tmp_path):
    arguments = ("--kernel", "pooling", "--case", "max_pool/cifar-cnn", "--clients", "3")
    found = run(tmp_path, *arguments)
    assert [(r["pass"], r["implementation"]) for r in found] == [
        ("forward", "separable"),
        ("forward", "library"),
        ("gradient", "separable"),
        ("gradient", "library"),
    ]
    for r in found:
        assert r["clients"] == 3 and r["arguments"] == [[3, 2, 4, 4, 3]]
        assert r["q1_s"] <= r["median_s"] <= r["q3_s"] and r["compile_s"] > 0
        assert r["peak_memory_bytes"] >= 3 * 2 * 4 * 4 * 3 * 4
        assert r["command"].startswith("python -m benchmarks.kernels --kernel pooling")
        assert r["jax"] and r["commit"] and "float64" in r["checked_against"]
        assert r["is_plain"] == (r["implementation"] == "library")
        least = max(r["operations"] / 1e9, r["bytes"] / 1e9)  # of the copy of that size
        assert r["roofline_ratio"] == pytest.approx(least / r["median_s"])
    plain = {r["pass"]: r["median_s"] for r in found if r["is_plain"]}
    for r in found:
        assert r["speedup_over_plain"] == pytest.approx(plain[r["pass"]] / r["median_s"])
    # By definition: x and the result; with the gradient their cotangents as well.
    assert [r["bytes"] for r in found[::2]] == [4 * (288 + 72), 8 * (288 + 72)]


def test_one_implementation_is_measured_beside_plain_jax(quick, tmp_path):
    arguments = ("--kernel", "pooling", "--case", "avg_pool/cifar-cnn", "--pass", "forward")
    found = run(tmp_path, *arguments, "--implementation", "separable")
    assert [r["implementation"] for r in found] == ["separable", "library"]


def test_a_wrong_result_is_not_timed(quick, tmp_path, monkeypatch):
    right = images.pooling.max_pool
    monkeypatch.setattr(
        images.pooling,
        "max_pool",
        lambda x, *args, implementation: (
            right(x, *args, implementation=implementation)
            * (1 + 1e-6 * (implementation == "separable"))
        ),
    )
    path = tmp_path / "kernels.jsonl"
    with pytest.raises(SystemExit) as stopped:
        kernels.main(["--kernel", "pooling", "--case", "max_pool/cifar-cnn", "--json", str(path)])
    assert "separable: result 0" in str(stopped.value.code)
    assert path.read_text() == ""


@pytest.mark.parametrize("result", [np.nan, 1.0 + 1e-5])
def test_check_refuses(result):
    benchmark = Benchmark((), {}, "plain", None, Cost(0, None, 0, None, ""), Bound((4,)))
    one = [np.ones(3)]
    measure.check("x", benchmark, jnp.ones(3), one, one)
    with pytest.raises(measure.WrongResult, match=r"at \(1,\)"):
        measure.check("x", benchmark, jnp.ones(3).at[1].set(result), one, one)


def test_nothing_leaves_the_loop():
    # A sum that does not depend on the loop would be taken out of it, and its time be nothing.
    calls = []
    shape = jax.ShapeDtypeStruct((), jnp.float32)

    def counted(x, w):
        jax.debug.callback(lambda _: calls.append(1), x[0])
        return x @ w

    x, w = jnp.arange(4.0), jnp.arange(8.0).reshape(4, 2)
    program = measure.compile_in_loop(lambda x, w: jnp.sum(x @ w), (x, w))
    text = program.executable.as_text()
    bodies = [part for part in text.split("\n}") if "dot" in part or "reduce" in part]
    assert bodies and not any("ENTRY" in part for part in bodies)
    assert jax.eval_shape(lambda x, w: jnp.sum(x @ w), x, w) == shape
    loop = measure.compile_in_loop(counted, (x, w))
    got = loop.executable(jnp.int32(5), x, w)
    jax.effects_barrier()
    np.testing.assert_array_equal(got, x @ w)
    assert len(calls) == 5


def test_result_and_gradients_are_of_the_named_arguments():
    fn = result_and_gradients(lambda a, b, c: a * b + c, (0, 2))
    result, da, dc = fn(jnp.float32(2.0), jnp.float32(3.0), jnp.float32(5.0), jnp.float32(7.0))
    assert (result, da, dc) == (22.0, 10.0, 2.0)


def test_limits_take_the_larger_time():
    made = limits.Limits()
    made.__dict__["peaks"] = PEAKS
    made.bandwidth = lambda num_bytes: 2e8
    of = made.of(Cost(5e8, None, 2e8, None, "words"), "forward", 4.0)
    assert of["limited_by"] == "bytes" and of["roofline_ratio"] == 0.25  # 1 s of 4 s
    assert of["memory_roofline_ratio"] == 0.5 and of["gflops_per_s"] == 0.125
    of = made.of(Cost(5e8, 2e9, 2e8, 2e8, "words"), "gradient", 4.0)
    assert of["limited_by"] == "operations" and of["roofline_ratio"] == 0.5


@pytest.mark.parametrize("name", ["cifar-first", "unet-2d-up", "depthwise-1d"])
def test_operations_of_a_convolution(name):
    cost = images.convolution(name, 2).cost
    want = {
        # Per place and output 27 multiplications and additions.
        "cifar-first": 2 * 2 * 10 * 30 * 30 * 27 * 32,
        # Every input meets each of the four taps, at the border too.
        "unet-2d-up": 2 * 2 * 4 * 64 * 64 * 4 * 64 * 32,
        # 500 places with a stride of 2, and one channel in a group.
        "depthwise-1d": 2 * 2 * 16 * 250 * 5 * 64,
    }[name]
    assert cost.operations == pytest.approx(want, rel=0.05)
    assert cost.gradient_operations == 3 * cost.operations


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("length", [1, 31, 100])
def test_packing_bit_by_bit_is_the_definition(bits, length):
    codes = np.random.default_rng(0).integers(0, 2**bits, (2, length)).astype(np.uint8)
    words = cohorts.pack_by_bits(jnp.asarray(codes), bits)
    for row, of_row in zip(words, codes, strict=True):
        np.testing.assert_array_equal(row, pack_reference(of_row, bits))
    np.testing.assert_array_equal(cohorts.unpack_by_bits(words, bits, length), codes)


def test_radix_2_is_the_definition():
    x = np.arange(16.0, dtype=np.float32).reshape(2, 8)
    np.testing.assert_array_equal(cohorts.radix_2(jnp.asarray(x)), x @ hadamard_matrix(8))


def test_every_case_can_be_made():
    # Shapes only: nothing is computed but the arguments of the smaller ones.
    names = {name: cases for name, (cases, _) in command.kernels().items()}
    assert list(names) == list(command.KERNELS)
    assert all(cases and len(set(cases)) == len(cases) for cases in names.values())


def test_report_has_every_case(tmp_path, quick):
    run(tmp_path, "--kernel", "pooling")
    report.main([str(tmp_path / "kernels.jsonl"), "--docs", str(tmp_path / "docs")])
    text = (tmp_path / "docs" / "kernels.md").read_text()
    for words in ("## pooling", "max_pool/cifar-cnn", "avg_pool/cifar-cnn", "**separable**"):
        assert words in text
    figure = tmp_path / "docs" / "figures" / "kernels-images.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert f"]({figure.relative_to(tmp_path / 'docs')})" in text


def test_report_refuses_other_records(tmp_path):
    path = tmp_path / "rounds.jsonl"
    for text, words in (("{}\n", "no record"), ("{\n", "not JSON"), ("", "no records")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            report.read(path)

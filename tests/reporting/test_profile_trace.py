"""Traces are added up as a profile says: own times, unions, parts of a round."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from fedjax_med.reporting.profile_summary import notes, seconds_of_rounds, throughput
from fedjax_med.reporting.profile_trace import module_name, operation_scopes, part_of, read_trace
from fedjax_med.reporting.quantities import share, with_unit
from fedjax_med.reporting.roofline import Peaks, copy_bandwidth, measure_peaks

HOST, DEVICE = 1, 2


def event(name, start, length, *, pid=HOST, thread=1, op=None, device="0", module="jit_run_chunk"):
    args = {"hlo_op": op, "hlo_module": module, "device_ordinal": device} if op else {}
    return {
        "ph": "X", "name": name, "ts": start, "dur": length, "pid": pid, "tid": thread, "args": args
    }  # fmt: skip


def process(pid, name):
    return {"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}


def thread_name(pid, tid, name):
    return {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}


def read(tmp_path, *events):
    path = tmp_path / "trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": [event("p/run", 0, 1000), *events]}, file)
    return read_trace(path, "p/", "jit_run_chunk")


def test_a_loop_has_only_its_own_time(tmp_path):
    trace = read(
        tmp_path,
        event("while.1", 100, 500, thread=2, op="while.1"),
        event("dot.1", 150, 100, thread=2, op="dot.1"),
        event("add.1", 300, 50, thread=2, op="add.1"),
        event("dot.1", 400, 100, thread=2, op="dot.1"),
        event("copy.1", 700, 10, thread=2, op="copy.1"),
    )
    seconds = {op.name: (op.seconds * 1e6, op.calls) for op in trace.operations}
    want = {"while.1": (250, 1), "dot.1": (200, 2), "add.1": (50, 1), "copy.1": (10, 1)}
    assert seconds.keys() == want.keys()
    for name, (own, calls) in want.items():
        assert seconds[name] == (pytest.approx(own), calls)
    assert trace.busy_s == {"rounds": pytest.approx(510e-6)}
    assert trace.window_s == pytest.approx(1e-3) and trace.phases_s == {"run": pytest.approx(1e-3)}


def test_threads_of_a_device_overlap_and_devices_are_averaged(tmp_path):
    trace = read(
        tmp_path,
        event("dot.1", 100, 100, thread=2, op="dot.1"),
        event("dot.2", 150, 100, thread=3, op="dot.2"),
        event("dot.1", 100, 50, thread=4, op="dot.1", device="1"),
    )
    assert trace.devices == 2
    assert trace.busy_s == {"rounds": pytest.approx((150 + 50) / 2 * 1e-6)}


def test_programs_are_told_apart_by_phase_and_name(tmp_path):
    trace = read(
        tmp_path,
        event("p/evaluate", 500, 100),
        event("dot.1", 100, 10, op="dot.1"),
        event("dot.1", 510, 20, op="dot.1"),
        event("dot.1", 700, 30, op="dot.1", module="jit_copy"),
    )
    seconds = {(op.program, op.name): op.seconds for op in trace.operations}
    programs = ("rounds", "evaluation", "other programs")
    assert seconds == {
        (program, "dot.1"): pytest.approx(length * 1e-6)
        for program, length in zip(programs, (10, 20, 30), strict=True)
    }


def test_an_accelerator_has_its_own_events(tmp_path):
    trace = read(
        tmp_path,
        process(HOST, "/host:CPU"),
        process(DEVICE, "/device:GPU:0"),
        thread_name(DEVICE, 1, "Stream #13(Compute)"),
        thread_name(DEVICE, 2, "XLA Modules"),
        event("launch", 0, 900, op="dot.1"),
        event("gemm_f32", 100, 50, pid=DEVICE, op="dot.1"),
        event("module", 100, 500, pid=DEVICE, thread=2, op="dot.1"),
    )
    assert [(op.name, op.calls) for op in trace.operations] == [("dot.1", 1)]
    assert trace.operations[0].seconds == pytest.approx(50e-6)


def test_a_trace_without_phases_is_refused(tmp_path):
    read(tmp_path)
    with pytest.raises(ValueError, match="'q/'"):
        read_trace(tmp_path / "trace.json.gz", "q/", "jit_f")


def test_a_trace_without_operations_is_read(tmp_path):
    trace = read(tmp_path, event("something", 10, 20))
    assert trace.operations == [] and trace.busy_s == {} and trace.devices == 0
    (note,) = notes(trace, has_loops=False, passes=1, counted=True)
    assert "no operations" in note
    assert len(notes(trace._replace(complete=False), has_loops=True, passes=2, counted=False)) == 5


@pytest.mark.parametrize(
    "scope, name, part",
    [
        ("jit(run_chunk)/while/body/local_step/vmap(jvp())/dot_general", "dot.1", "forward"),
        ("jit(f)/while/body/local_step/vmap(jvp(M))/transpose", "t.1", "forward"),
        ("jit(f)/local_step/vmap(transpose(jvp()))/mul", "mul.1", "backward"),
        ("jit(f)/local_step/vmap(optimizer)/add", "add.1", "optimizer"),
        ("jit(f)/local_step/vmap()/add", "add.1", "rest of the local step"),
        ("jit(f)/while/body/minibatch/vmap()/gather", "g.1", "minibatch"),
        ("jit(f)/while/body/end/vmap(begin)/sub", "s.1", "end of a client"),
        ("jit(f)/while/body/server_step/add", "a.1", "server step"),
        ("jit(f)/while/body/aggregate/div", "d.1", "aggregation"),
        ("jit(f)/while/body/local_step/while", "while.7", "loops and dispatch"),
        ("jit(f)/while/cond/lt", "compare.1", "loops and dispatch"),
        ("", "copy.1", "rest of the round"),
    ],
)
def test_parts(scope, name, part):
    assert part_of(scope, name) == part


def test_scopes_of_a_compiled_program():
    def f(x, w):
        with jax.named_scope("aggregate"):
            y = jnp.tanh(x @ w)
        with jax.named_scope("server_step"):
            return y.sum(0)

    text = jax.jit(f).lower(jnp.ones((64, 64)), jnp.ones((64, 64))).compile().as_text()
    assert module_name(text) == "jit_f"
    assert {"aggregation", "server step"} <= {part_of(s) for s in operation_scopes(text).values()}


def test_an_instruction_without_a_scope_gets_one_from_its_neighbours():
    text = """
%fused (p: f32[2]) -> f32[2] {
  %p = f32[2] parameter(0)
  ROOT %m = f32[2] multiply(%p, %p), metadata={op_name="jit(f)/local_step/jvp()/mul"}
}

ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2] parameter(0)
  %rows = f32[2] gather(%a), metadata={op_name="jit(f)/minibatch/gather"}
  %dot.1 = f32[2] dot(%rows, %a)
  %fusion = f32[2] fusion(%dot.1), kind=kLoop, calls=%fused
  %back = f32[2] add(%fusion, %a), metadata={op_name="jit(f)/local_step/transpose(jvp())/add"}
  %dot.2 = f32[2] dot(%back, %fusion)
  ROOT %copy = f32[2] copy(%a)
}
"""
    parts = {name: part_of(scope, name) for name, scope in operation_scopes(text).items()}
    assert parts["fusion"] == parts["dot.1"] == "forward"
    assert parts["dot.2"] == "backward" and "copy" not in parts


def test_seconds_of_whole_chunks():
    chunks = [(1, 9.0), (3, 1.0), (2, 5.0), (2, 0.5)]
    assert seconds_of_rounds(chunks, 4, 8) == 11.0
    assert seconds_of_rounds(chunks, 0, 4) == 12.0
    for first, last in ((2, 8), (4, 7)):
        with pytest.raises(ValueError, match="whole chunks"):
            seconds_of_rounds(chunks, first, last)


def test_throughput_counts_useful_steps():
    rates = throughput(
        seconds_per_round=0.5,
        steps_per_round=10.0,
        useful_fraction=0.8,
        step_flops=200.0,
        step_bytes=50.0,
        peaks=Peaks(8000.0, 4000.0, "float32", (1, 1, 1), 1),
        num_devices=2,
    )
    assert rates == {
        "achieved_flops_per_s": 4000.0,
        "executed_flops_per_s": 5000.0,
        "share_of_peak_flops": 0.25,
        "bytes_per_s": 1000.0,
        "share_of_peak_bandwidth": 0.125,
        "flops_per_byte": 4.0,
    }


def test_peaks_are_of_this_device():
    peaks = measure_peaks(repeats=1, scale=0.02)
    assert peaks.flops_per_s > 1e6 and peaks.bytes_per_s > 1e6 and peaks.dtype == "float32"
    # At the ridge both limits take the same time; beyond it each takes its own.
    at_ridge = peaks.flops_per_s / peaks.bytes_per_s
    assert peaks.least_seconds(at_ridge, 1) == pytest.approx(1 / peaks.bytes_per_s)
    assert peaks.least_seconds(at_ridge, 2) == pytest.approx(2 / peaks.bytes_per_s)
    assert peaks.least_seconds(3 * at_ridge, 2) == pytest.approx(3 / peaks.bytes_per_s)
    assert copy_bandwidth(1024, repeats=1) > 0


@pytest.mark.parametrize(
    "value, text",
    [
        (0.00123456, "1.23 ms"), (12.0, "12.0 s"), (999.7, "1.00 ks"), (0.0, "0 s"),
        (4.5e-8, "45.0 ns"), (3e-13, "0.00 ns"), (None, "unknown"), (125.4, "125 s"),
    ],
)  # fmt: skip
def test_units(value, text):
    assert with_unit(value, "s") == text


def test_shares():
    assert [share(v) for v in (1.0, 0.96, 0.0123, 0.0, None)] == [
        "100 %", "96 %", "1.2 %", "0 %", "unknown"
    ]  # fmt: skip

"""`fedjax-med profile`: its folder, its numbers, what it says, and what it refuses."""

import functools
import gzip
import json

import pytest

from fedjax_med.cli import main, profile_run
from fedjax_med.reporting import profile_trace, roofline
from fedjax_med.reporting.profile_trace import PARTS

PROFILE = ("profile", "breast-cancer", "--rounds", "2", "--model", "mlp", "--hidden", "8")


@pytest.fixture(scope="module", autouse=True)
def small_peaks():
    small = functools.partial(roofline.measure_peaks, repeats=1, scale=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "measure_peaks", small)
        patch.setattr(roofline, "_CALL_S", 1e-3)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_peaks):
    path = tmp_path_factory.mktemp("profile") / "p"
    assert main([*PROFILE, "--lanes", "2", "--output", str(path), "--quiet"]) == 0
    return path


@pytest.fixture
def profile(folder):
    return json.loads((folder / "profile.json").read_text())


def test_folder_holds_all_parts(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "versions.json",
        "profile.json",
        "profile.png",
        "trace.json.gz",
        "xplane.pb",
    }
    assert (folder / "profile.png").read_bytes().startswith(b"\x89PNG")
    with gzip.open(folder / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]  # what Perfetto reads
    assert any(event["name"] == "fedjax_med/pack lanes" for event in events)


def test_times_add_up(profile):
    traced = profile["traced"]
    assert sum(traced["host_phases_s"].values()) == pytest.approx(traced["window_s"])
    assert sum(traced["busy_s"].values()) == pytest.approx(traced["window_s"])
    assert {"draw cohorts", "pack lanes", "dispatch", "evaluate"} <= traced["host_phases_s"].keys()
    assert all(seconds >= 0 for seconds in traced["host_phases_s"].values())
    assert traced["busy_s"]["rounds"] > 0 and traced["busy_s"]["evaluation"] > 0


def test_every_part_of_a_round_has_operations(profile):
    parts = profile["traced"]["parts_s"]
    assert parts.keys() <= {*PARTS, "evaluation", "other programs"}
    assert set(PARTS[:5]) | {"end of a client", "server step", "evaluation"} <= parts.keys()
    of_step = [op for op in profile["traced"]["operations"] if op["part"] == "backward"]
    # Every lane slot is one local step, and every step runs its operations once for all lanes.
    slots = profile["local_steps_per_round"] / profile["useful_fraction"]
    assert max(op["calls"] for op in of_step) == pytest.approx(slots / profile["lanes"])


def test_numbers_agree_with_each_other(profile):
    rates, step = profile["throughput"], profile["local_step"]
    steps = profile["local_steps_per_round"]
    assert profile["rounds"] == 2 and profile["rounds_in_all"] == 6 and profile["lanes"] == 2
    assert steps == int(steps) and 0 < profile["useful_fraction"] <= 1
    assert profile["flops_per_round"] == steps * step["flops"]
    assert rates["achieved_flops_per_s"] == pytest.approx(
        steps * step["flops"] / profile["seconds_per_round"]
    )
    assert rates["share_of_peak_flops"] == pytest.approx(
        rates["achieved_flops_per_s"] / profile["peaks"]["flops_per_s"]
    )
    assert rates["executed_flops_per_s"] >= rates["achieved_flops_per_s"]
    # Three matrix products of 16 x 30 x 8 (one forward; by weights, not by inputs) and of
    # 16 x 8 x 1, a multiplication and an addition each; the rest is elementwise on 16 x 8.
    products = 2 * 16 * (2 * 30 * 8 + 3 * 8)
    assert products <= step["flops"] <= 1.5 * products
    assert profile["compile_s"] > 0 and profile["notes"] == []


def test_tables_name_what_matters(command):
    status, out, err = command(*PROFILE, "--algorithm", "fedprox", "--devices", "2")
    assert (status, err) == (0, "")
    for words in ("useful lane slots", "FLOP/s", "compilation", "wait for the devices"):
        assert words in out
    for words in ("forward", "backward", "optimizer", "Longest of"):
        assert words in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("Profile: runs/breast-cancer-fedprox-profile-")


def test_without_operations_the_rest_is_told(command, monkeypatch, tmp_path):
    monkeypatch.setattr(profile_trace, "_of_devices", lambda events, names: [])
    status, out, _ = command(*PROFILE, "--output", "p")
    assert status == 0 and "names no operations" in " ".join(out.split())
    traced = json.loads((tmp_path / "p" / "profile.json").read_text())["traced"]
    assert traced["parts_s"] == {} and traced["busy_s"] == {"idle": None}


@pytest.mark.parametrize(
    "options, words",
    [
        (("nothing",), "unknown dataset 'nothing'"),
        (("breast-cancer", "--rounds", "0"), "--rounds must be at least 1, got 0"),
        (("breast-cancer", "--cohort", "99"), "--cohort 99 is larger than the population"),
        (("breast-cancer", "--algorithm", "fedavg", "--mu", "1"), "--mu 1.0 has no effect"),
        (("breast-cancer", "--resume"), "--resume"),
        (("breast-cancer", "--output", "used"), "not empty"),
        (("breast-cancer", "--output", "used/file"), "is a file"),
    ],
)
def test_bad_input_is_one_sentence(command, tmp_path, options, words):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    status, out, err = command("profile", *options)
    assert status == 2 and out == ""
    assert words in err and err.startswith("fedjax-med: ") and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "used" / "file").read_text() == "mine"


def test_the_profiler_is_stopped_after_an_error(tmp_path):
    import jax

    profiler = profile_run._Profiler(1, tmp_path)
    profiler._running = True
    jax.profiler.start_trace(str(tmp_path))
    profiler.close()
    assert not profiler._running and list(tmp_path.rglob("*.xplane.pb"))
    profiler.close()
    jax.profiler.start_trace(str(tmp_path / "next"))  # raises if the first were still running
    jax.profiler.stop_trace()
    assert list((tmp_path / "next").rglob("*.xplane.pb"))

"""A run that was cut off goes on bit for bit, or says why it cannot."""

import gc
import shutil
from functools import lru_cache

import numpy as np
import optax
import pytest

from fedjax_med import aggregation, algorithms
from fedjax_med.engine import (
    CheckpointError,
    CheckpointPolicy,
    callbacks,
    checkpoint,
    cohorts,
    gradient,
    grid,
    placement,
    simulate,
    steps,
)
from tests.engine.toy import (
    LOCAL_WORK,
    PLACEMENTS,
    assert_identical,
    make_dataset,
    make_task,
    momentum,
    toy_loss,
    with_persistent_state,
)

GRADIENT = gradient(toy_loss)
ROUNDS = 9


class StopAfter(callbacks.EarlyStopping):
    """Ends the run after a number of rounds, like somebody who presses Ctrl-C."""

    def __init__(self, round_index):
        self.round_index = round_index

    def stops_at(self, round_index):
        return round_index == self.round_index

    def __call__(self, progress):
        return progress.round == self.round_index


def persistent():
    return with_persistent_state(GRADIENT, momentum(), aggregation.weighted_mean())


def server_momentum():
    return algorithms.fed_avg(
        GRADIENT,
        optax.adam(0.02),
        server_momentum=0.9,
        aggregator=aggregation.coordinate_median(),
    )


def run(folder=None, *, resume=False, every=4, algorithm=None, dataset=None, **options):
    policy = None if folder is None else CheckpointPolicy(folder, every=every, resume=resume)
    defaults = dict(
        task=make_task(),
        rounds=ROUNDS,
        local_work=LOCAL_WORK["steps"],
        cohort=cohorts.uniform(4),
        lanes=2,
        seed=5,
        evaluate_every=3,
        rounds_per_call=4,
    )
    return simulate(
        algorithm or persistent(),
        dataset or make_dataset(test=True),
        checkpoint=policy,
        **(defaults | options),
    )


@lru_cache
def undisturbed(make=persistent):
    """The run that those below are cut off from; not to be changed."""
    return run(algorithm=make())


def assert_same_bits(got, want):
    assert_identical(
        (got.state, got.client_states, got.history), (want.state, want.client_states, want.history)
    )
    assert got.rounds == want.rounds and got.excluded == want.excluded
    assert len(got.evaluations) == len(want.evaluations)
    for one, other in zip(got.evaluations, want.evaluations, strict=True):
        assert one[:2] == other[:2]
        for group in ("pooled", "per_client"):
            a, b = getattr(one, group), getattr(other, group)
            assert list(a) == list(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


# Before the first checkpoint that is due, at one, and between two.
@pytest.mark.parametrize(
    "make, stop",
    [
        (persistent, 1),
        (persistent, 4),
        (server_momentum, 6),
        pytest.param(persistent, 6, marks=pytest.mark.slow),
        pytest.param(server_momentum, 1, marks=pytest.mark.slow),
        pytest.param(server_momentum, 4, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_the_undisturbed_one(tmp_path, make, stop):
    want = undisturbed(make)
    first = run(tmp_path, algorithm=make(), callbacks=[StopAfter(stop)])
    assert first.rounds == stop
    got = run(tmp_path, resume=True, algorithm=make())
    assert got.seconds_per_round and sum(n for n, _ in got.seconds_per_round) == ROUNDS - stop
    assert_same_bits(got, want)


def test_a_run_may_be_cut_off_again_and_again(tmp_path):
    for stop in (2, 3, 7):
        run(tmp_path, resume=True, callbacks=[StopAfter(stop)], every=2)
    assert_same_bits(run(tmp_path, resume=True, every=2), undisturbed())


@pytest.mark.parametrize("where", ["mesh_split", pytest.param("pmap", marks=pytest.mark.slow)])
def test_resume_on_several_devices(tmp_path, where):
    make, lanes = PLACEMENTS[where]
    options = dict(placement=make(), lanes=lanes)
    want = run(**options)
    run(tmp_path, callbacks=[StopAfter(5)], **options)
    assert_same_bits(run(tmp_path, resume=True, **options), want)


def test_resume_of_experiments(tmp_path):
    def build(rate):
        return with_persistent_state(GRADIENT, optax.sgd(rate), aggregation.weighted_mean())

    options = dict(algorithm=build, experiments=grid(seed=[1, 2], rate=[0.1, 0.2]), seed=0)
    want = run(**options)
    run(tmp_path, callbacks=[StopAfter(5)], **options)
    assert_same_bits(run(tmp_path, resume=True, **options), want)


def test_resume_of_a_streamed_run(tmp_path):
    want = run(stream=True)
    run(tmp_path, stream=True, callbacks=[StopAfter(5)])
    assert_same_bits(run(tmp_path, stream=True, resume=True), want)


def test_names_of_excluded_clients_survive(tmp_path):
    dataset = make_dataset(test=True)
    dataset.train.examples["x"][0] = np.nan
    options = dict(dataset=dataset, cohort=None)
    want = run(**options)
    assert len(want.excluded) == ROUNDS
    run(tmp_path, callbacks=[StopAfter(5)], **options)
    assert_same_bits(run(tmp_path, resume=True, **options), want)


def stopping():
    # On this small task the accuracy does not improve for ever.
    return callbacks.EarlyStopping("accuracy", patience=2, mode="max", split="test")


def test_early_stopping_decides_as_in_the_undisturbed_run(tmp_path):
    options = dict(rounds=40, evaluate_every=2)
    want = run(tmp_path / "undisturbed", callbacks=[stopping()], **options)
    assert 4 < want.rounds < 40
    # Cut off when one of the two evaluations of its patience has passed.
    run(tmp_path / "cut", callbacks=[stopping(), StopAfter(want.rounds - 1)], **options)
    got = run(tmp_path / "cut", resume=True, callbacks=[stopping()], **options)
    assert_same_bits(got, want)
    # And one that had stopped stays stopped.
    again = run(tmp_path / "undisturbed", resume=True, callbacks=[stopping()], **options)
    assert again.seconds_per_round == []
    assert_same_bits(again, want)


def test_a_finished_run_is_not_run_again(tmp_path):
    want = run(tmp_path)
    got = run(tmp_path, resume=True)
    assert got.seconds_per_round == []
    assert_same_bits(got, want)


def test_more_rounds_can_be_asked_for(tmp_path):
    # But for the evaluation that the shorter run made at its end.
    run(tmp_path, rounds=6)
    assert_same_bits(run(tmp_path, rounds=ROUNDS, resume=True), undisturbed())


def test_without_resume_a_run_begins_anew(tmp_path):
    run(tmp_path, callbacks=[StopAfter(4)])
    again = run(tmp_path, resume=False)
    assert sum(n for n, _ in again.seconds_per_round) == ROUNDS


def test_resume_without_a_checkpoint_begins_at_the_beginning(tmp_path):
    assert_same_bits(run(tmp_path / "new", resume=True), undisturbed())


def test_old_checkpoints_are_removed(tmp_path):
    policy = CheckpointPolicy(tmp_path, every=2, keep=3)
    simulate(
        persistent(),
        make_dataset(),
        task=make_task(),
        rounds=ROUNDS,
        local_work=LOCAL_WORK["steps"],
        checkpoint=policy,
        lanes=2,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000006", "00000008", "00000009"]


# -- damaged checkpoints -----------------------------------------------------------------------


def test_a_half_written_checkpoint_is_never_loaded(tmp_path):
    run(tmp_path, callbacks=[StopAfter(6)])
    # What orbax leaves when it is killed while it writes round 8: a folder by another name.
    half = tmp_path / "00000008.orbax-checkpoint-tmp-1700000000000000"
    shutil.copytree(tmp_path / "00000006", half)
    next(p for p in half.rglob("*") if p.is_file()).unlink()
    assert checkpoint.latest_round(tmp_path) == 6
    assert_same_bits(run(tmp_path, resume=True), undisturbed())


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 0)


# Orbax reads all arrays at once; after the first error nobody asks for the others' any more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_truncated_checkpoint_is_an_error_that_names_it(tmp_path):
    run(tmp_path, callbacks=[StopAfter(6)])
    sound, refused = checkpoint.load(tmp_path), 0
    for damaged in files_of(tmp_path / "00000006"):
        content = damaged.read_bytes()
        damaged.write_bytes(content[: len(content) // 2])
        try:
            loaded = checkpoint.load(tmp_path)
        except CheckpointError as error:
            assert "00000006 cannot be read" in str(error)
            refused += 1
        else:  # a file that restoring does not need, such as a time stamp
            assert loaded.description == sound.description
            assert set(loaded.arrays) == set(sound.arrays)
            for name, array in sound.arrays.items():
                np.testing.assert_array_equal(loaded.arrays[name], array)
        damaged.write_bytes(content)
    assert refused > 0
    assert checkpoint.load(tmp_path).round == 6
    gc.collect()  # what is left of those errors is reported here, not in another test


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "00000003").mkdir()
    with pytest.raises(CheckpointError, match="00000003 cannot be read"):
        run(tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        checkpoint.load(tmp_path / "nothing")


# -- another run's checkpoint ------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    run(folder, callbacks=[StopAfter(6)], description={"algorithm": "persistent", "rate": 0.1})
    return folder


SAME = dict(description={"algorithm": "persistent", "rate": 0.1})


def other_data():
    dataset = make_dataset(test=True)
    dataset.train.examples["x"][3, 1] += 1e-3  # one number of one example
    return dataset


@pytest.mark.parametrize(
    "options, name",
    [
        (dict(dataset=other_data()), "data"),
        (dict(local_work=steps(4, batch_size=4)), "local_work"),
        (dict(cohort=cohorts.uniform(5)), "cohort"),
        (dict(placement=placement.pmap(2)), "placement"),
        (dict(lanes=3), "lanes"),
        (dict(seed=6), "seeds"),
        (dict(description={"algorithm": "persistent", "rate": 0.2}), "rate"),
        (dict(description={"algorithm": "fed_avg", "rate": 0.1}), "algorithm"),
    ],
)
def test_another_run_is_not_resumed(saved, options, name):
    before = sorted(p.name for p in saved.iterdir())
    with pytest.raises(CheckpointError, match=f"is of another run: {name} was .*, now it is"):
        run(saved, resume=True, **(SAME | options))
    assert sorted(p.name for p in saved.iterdir()) == before  # nothing written over


def test_another_algorithm_has_another_state(saved):
    with pytest.raises(CheckpointError, match=r"of another algorithm or model|has no array"):
        run(saved, resume=True, algorithm=server_momentum(), **SAME)


def test_fewer_rounds_than_were_done_are_refused(saved):
    with pytest.raises(CheckpointError, match="has 6 rounds, but only 5 were asked for"):
        run(saved, resume=True, rounds=5, **SAME)


def test_lanes_that_were_chosen_are_those_of_the_checkpoint(tmp_path):
    want = run(lanes=None)
    run(tmp_path, lanes=None, callbacks=[StopAfter(5)])
    got = run(tmp_path, resume=True, lanes=None)
    assert got.num_lanes == want.num_lanes
    assert_same_bits(got, want)


def test_arrays_and_texts_of_a_checkpoint_come_back(tmp_path):
    arrays = {
        "a": np.arange(3),
        "nothing": np.zeros((0, 4), np.float32),
        "scalar": np.float32(2.5),
        "flag": np.array([True, False]),
    }
    description = {"names": ["Zürich", "São Paulo"], "none": None}
    checkpoint.save(tmp_path, checkpoint.Checkpoint(7, arrays, description))
    loaded = checkpoint.load(tmp_path)
    assert loaded.round == 7 and loaded.description == description
    assert set(loaded.arrays) == set(arrays)
    for name, array in arrays.items():
        assert loaded.arrays[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(loaded.arrays[name], array)

import io
import itertools
import json

import numpy as np
import optax
import pytest

from fedjax_med import algorithms
from fedjax_med.engine import Evaluation, Progress, callbacks, cohorts, gradient, grid, simulate
from tests.engine.toy import LOCAL_WORK, make_dataset, make_task, toy_loss


def train(*watching, rounds=4, algorithm=None, **options):
    defaults = dict(task=make_task(), local_work=LOCAL_WORK["epochs"], evaluate_every=2, lanes=2)
    algorithm = algorithm or algorithms.fed_avg(gradient(toy_loss), optax.sgd(0.1))
    return simulate(
        algorithm,
        options.pop("dataset", None) or make_dataset(test=True),
        rounds=rounds,
        callbacks=watching,
        **(defaults | options),
    )


def strict_json(line):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(line, parse_constant=refuse)


def test_json_lines_hold_rounds_and_evaluations(tmp_path):
    dataset = make_dataset(test=True)
    dataset.train.examples["x"][0] = np.nan  # hospital 0
    run = train(callbacks.JsonLines(tmp_path / "log.jsonl"), dataset=dataset)
    records = [strict_json(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rounds = [r for r in records if "split" not in r]
    assert [r["round"] for r in rounds] == [1, 2, 3, 4]
    for record, loss in zip(rounds, run.history["train_loss"], strict=True):
        assert record["train_loss"] == pytest.approx(float(loss))
        assert record["num_excluded"] == 1 and record["excluded_clients"] == ["hospital 0"]
    evaluated = [r for r in records if "split" in r]
    assert [(r["split"], r["round"]) for r in evaluated] == [("test", 2), ("test", 4)]
    np.testing.assert_allclose(
        evaluated[-1]["per_client"]["accuracy"], run.evaluations[-1].per_client["accuracy"]
    )


def test_json_lines_write_null_for_what_is_not_a_number():
    evaluation = Evaluation(
        "test", 3, {"auc": np.float32(np.nan)}, {"auc": np.array([0.5, np.nan, np.inf])}
    )
    record = strict_json(json.dumps(callbacks.evaluation_record(evaluation)))
    assert record["pooled"] == {"auc": None} and record["per_client"] == {"auc": [0.5, None, None]}


def test_json_lines_append(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"round": 0}\n')
    train(callbacks.JsonLines(path), rounds=1, evaluate_every=0)
    assert [strict_json(line)["round"] for line in path.read_text().splitlines()] == [0, 1]


def test_json_lines_of_experiments_are_lists(tmp_path):
    def build(rate):
        return algorithms.fed_avg(gradient(toy_loss), optax.sgd(rate))

    path = tmp_path / "log.jsonl"
    run = train(
        callbacks.JsonLines(path), algorithm=build, rounds=2, experiments=grid(rate=[0.1, 0.2])
    )
    first = strict_json(path.read_text().splitlines()[0])
    np.testing.assert_allclose(first["train_loss"], run.history["train_loss"][:, 0])


def test_tensorboard_files_hold_the_scalars(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    run = train(callbacks.TensorBoard(tmp_path))
    (file,) = tmp_path.iterdir()
    scalars = {}
    content, at = file.read_bytes(), 0
    while at < len(content):  # records of length, checksum, event, checksum
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
        at += 12 + length + 4
    for r, loss in enumerate(run.history["train_loss"]):
        assert scalars["train/train_loss", r + 1] == pytest.approx(float(loss))
    last = run.evaluations[-1]
    assert scalars["test/accuracy", 4] == pytest.approx(float(last.pooled["accuracy"]))


def test_the_progress_bar_tells_rounds_and_loss():
    from rich.console import Console

    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    run = train(callbacks.ProgressBar(console))
    assert "4/4" in text.getvalue()
    assert f"loss {run.history['train_loss'][-1]:.4f}" in text.getvalue()


class Recorder:
    def __init__(self, stops=(), end_at=None, error_at=None):
        self.seen, self.closed = [], 0
        self.stops, self.end_at, self.error_at = stops, end_at, error_at

    def stops_at(self, round_index):
        return round_index in self.stops

    def __call__(self, progress):
        self.seen.append(progress)
        if progress.round == self.error_at:
            raise RuntimeError("a callback failed")
        return progress.round == self.end_at

    def close(self):
        self.closed += 1


def test_callbacks_are_told_every_round_once():
    recorder = Recorder(stops=(1, 5))
    assert isinstance(recorder, callbacks.Callback)
    run = train(recorder, rounds=7, evaluate_every=3)
    covered = [(p.first_round, p.round) for p in recorder.seen]
    assert {1, 3, 5, 6, 7} <= {end for _, end in covered}
    assert [start for start, _ in covered] == [0, *(end for _, end in covered[:-1])]
    told = np.concatenate([p.metrics["train_loss"] for p in recorder.seen])
    np.testing.assert_array_equal(told, run.history["train_loss"])
    assert [e.round for p in recorder.seen for e in p.evaluations] == [3, 6, 7]
    assert len(recorder.seen[-1].past_evaluations) == 3
    final = recorder.seen[-1].variables()
    for got, want in zip(final.params, run.variables.params, strict=True):
        np.testing.assert_array_equal(got, want)
    assert recorder.closed == 1


def test_a_callback_can_end_the_run():
    recorder = Recorder(stops=(3,), end_at=3)
    run = train(recorder, rounds=9, evaluate_every=0)
    assert run.rounds == 3 and len(run.history["train_loss"]) == 3


def test_every_callback_is_called_even_if_an_earlier_one_ends_the_run():
    first, second = Recorder(stops=(2,), end_at=2), Recorder()
    train(first, second, rounds=5, evaluate_every=0)
    assert second.seen[-1].round == 2


def test_callbacks_are_closed_after_an_error():
    failing, other = Recorder(stops=(2,), error_at=2), Recorder()
    with pytest.raises(RuntimeError, match="a callback failed"):
        train(failing, other, evaluate_every=0)
    assert failing.closed == other.closed == 1


def evaluations(values, split="validation"):
    return [
        Evaluation(split, r + 1, {"loss": np.float32(v)}, {"loss": np.zeros(2)})
        for r, v in enumerate(values)
    ]


def progress(past):
    return Progress(1, 9, 0, {}, [], [], past, 0.1, 1.0, lambda: None)


@pytest.mark.parametrize(
    "values, options, stops",
    [
        ([], {}, False),
        ([3.0, 2.0, 1.0], {}, False),
        ([3.0, 2.0, 2.0], {}, False),
        ([3.0, 2.0, 2.0, 2.5], {}, True),
        ([3.0, 2.0, 2.5, 1.9], {}, False),
        ([1.0, 2.0, 3.0], dict(mode="max"), False),
        ([1.0, 2.0, 1.5, 1.9], dict(mode="max"), True),
        ([3.0, 2.99, 2.98], dict(min_delta=0.1), True),
        ([3.0, 2.8, 2.6], dict(min_delta=0.1), False),
        ([np.nan, np.nan], {}, True),
        ([3.0, np.nan, 2.0], {}, False),
    ],
)
def test_early_stopping_waits_for_its_patience(values, options, stops):
    stopping = callbacks.EarlyStopping("loss", patience=2, **options)
    assert stopping(progress(evaluations(values))) is stops
    # Evaluations of another split say nothing.
    assert stopping(progress(evaluations(values, "test"))) is False


def test_early_stopping_ends_a_run():
    stopping = callbacks.EarlyStopping("accuracy", patience=1, mode="max", split="test")
    run = train(stopping, rounds=60, evaluate_every=2)
    seen = [float(e.pooled["accuracy"]) for e in run.evaluations]
    assert run.rounds < 60 and seen[-1] <= seen[-2]
    assert all(b > a for a, b in itertools.pairwise(seen[:-1]))


def test_early_stopping_names_what_it_does_not_know():
    with pytest.raises(ValueError, match="mode must be 'min' or 'max', got 'lowest'"):
        callbacks.EarlyStopping("loss", patience=1, mode="lowest")
    with pytest.raises(ValueError, match="patience must be at least 1, got 0"):
        callbacks.EarlyStopping("loss", patience=0)
    stopping = callbacks.EarlyStopping("auc", patience=1, split="test")
    with pytest.raises(ValueError, match="metric 'auc' is not among those evaluated: accuracy"):
        train(stopping)


def test_rounds_without_clients_have_records_too(tmp_path):
    path = tmp_path / "log.jsonl"
    train(callbacks.JsonLines(path), cohort=cohorts.listed([(), (1,)]), evaluate_every=0)
    records = [strict_json(line) for line in path.read_text().splitlines()]
    assert [r["num_clients"] for r in records] == [0, 1, 0, 1]


def test_callbacks_are_closed_when_the_arguments_are_refused(tmp_path):
    lines = callbacks.JsonLines(tmp_path / "log.jsonl")
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        train(lines, rounds=0)
    with pytest.raises(ValueError, match="closed file"):
        lines._file.write("")

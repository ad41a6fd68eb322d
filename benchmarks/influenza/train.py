"""Trains everything that the results are made of, and keeps what was forecast."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.influenza import alarms, study
from fedjax_med.studies import forecast_training as training

ROUNDS = 30
# Left out and with neighbours: the method that is shown, with the first two seeds.
SHOWN = "fedavg"


def train(
    places: str, models: Sequence[str], *, seeds: Sequence[int], data_dir: str | None, folder: Path
) -> None:
    """Writes `<places>.npz`, quantiles of test weeks as standardised logarithms, and `.json`.

    A key is "model/method"; arrays are `[seeds, N, horizons * levels]`.
    """
    to_tune = study.setup(places, to_tune=True, data_dir=data_dir)
    data = study.setup(places, to_tune=False, data_dir=data_dir)
    found: dict[str, np.ndarray] = {}
    notes: dict[str, dict] = {}

    def keep(key: str, made: np.ndarray, **note) -> None:
        found[key], notes[key] = made.astype(np.float32), note
        # Written after every method: a run that is ended early has lost little.
        np.savez_compressed(folder / f"{places}.npz", **found)  # pyright: ignore[reportArgumentType]
        (folder / f"{places}.json").write_text(json.dumps(notes))
        print(f"{places}: {key} {note}", file=sys.stderr, flush=True)

    rate_of = {}
    for model in models:
        for method in training.TRAINED:
            start = time.perf_counter()
            rate, losses = training.tuned(method, model, to_tune, ROUNDS)
            rate_of[model, method] = rate
            learn = training.learner(model, data.dataset, ROUNDS)
            (made,) = training.outputs(method, learn, [data.population], seeds=seeds, rates=(rate,))
            seconds = round(time.perf_counter() - start, 1)
            keep(f"{model}/{method}", made, rate=rate, losses=losses, seconds=seconds)
    model = models[0]
    rate = rate_of[model, SHOWN]
    if places == "regions":
        learn = training.learner(model, data.dataset, ROUNDS)
        parts = training.outputs(
            SHOWN, learn, training.without_each(data), seeds=seeds[:2], rates=(rate,)
        )
        keep(f"{model}/{SHOWN}/left out", np.concatenate(parts, axis=1), rate=rate)
        table = alarms.of_outbreaks(to_tune, data, learn, rate)
        (folder / "alarms.json").write_text(json.dumps(table))
    near = study.setup(places, to_tune=False, data_dir=data_dir, neighbours=2)
    learn = training.learner(model, near.dataset, ROUNDS)
    (made,) = training.outputs(SHOWN, learn, [near.population], seeds=seeds, rates=(rate,))
    keep(f"{model}/{SHOWN}/neighbours", made, rate=rate)

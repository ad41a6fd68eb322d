"""Gradient inversion tried on a dataset: against a single record, sums, updates, clip and noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.attacks.gradient_inversion import (
    first_dense,
    invert_by_matching,
    invert_dense,
    psnr,
)
from fedjax_med.attacks.updates import clipped_and_noised, gradient_of, update_of
from fedjax_med.data import ClientArrays
from fedjax_med.engine import Task, Variables
from fedjax_med.engine.contracts import PyTree
from fedjax_med.models.resnet import grey_values

_SUMS = (4, 16)
_LOCAL_STEPS = 5
_MATCHING_STEPS = 300
_TOTAL_VARIATION = 1e-3


class Trial(NamedTuple):
    """Reconstructions from one kind of message.

    Attributes:
      title: what was seen by the attacker.
      originals: `[victims, ...]`, of each message one of its records.
      found: `[victims, ...]`, reconstructions.
      psnr: float `[victims]`, in dB, at most 200; of sums the median over their records.
    """

    title: str
    originals: np.ndarray
    found: np.ndarray
    psnr: np.ndarray


def try_inversion(
    task: Task,
    arrays: ClientArrays,
    *,
    clip_norm: float,
    noise_multipliers: Sequence[float] = (0.01, 0.1, 1.0),
    learning_rate: float = 0.1,
    num_victims: int = 6,
    seed: int = 0,
) -> list[Trial]:
    """Tries to reconstruct records from what hospitals send in the first round.

    The attack is the analytic one where the network begins with a dense layer, else cosine matching with
    total variation and known labels.

    Args:
      task: what is learned.
      arrays: training examples of the hospitals, `x` floating, or images of 8 bits.
      clip_norm: of the clipped messages.
      noise_multipliers: of the noised ones.
      learning_rate: of the local steps of an update.
      num_victims: messages of each kind.
      seed: of the choice of records, of noise, and of the model.
    """
    arrays = _in_floats(arrays)
    variables = task.init(seed)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(arrays.num_examples)
    x = np.asarray(arrays.examples["x"])
    span = float(x.max() - x.min())
    is_dense = first_dense(variables.params) is not None
    count = num_victims if is_dense else min(num_victims, 2)
    invert = _dense if is_dense else _matching(task, variables)

    def trial(title: str, size: int, send: Callable[[PyTree, int], PyTree]) -> Trial:
        originals, found, quality = [], [], []
        for victim in range(count):
            start = victim * size % max(1, len(rows) - size + 1)
            involved = rows[start : start + size]
            examples = _take(arrays, involved)
            reconstruction = invert(send(examples, victim), examples, send, victim)
            reconstruction = np.clip(reconstruction.reshape(x.shape[1:]), x.min(), x.max())
            # The closest of many records would always be close.
            each = [psnr(original, reconstruction, span=span) for original in x[involved]]
            originals.append(x[involved[0]])
            found.append(reconstruction)
            quality.append(min(float(np.median(each)), 200.0))  # exact would be infinite
        return Trial(title, np.stack(originals), np.stack(found), np.array(quality))

    def gradient(examples: PyTree, victim: int) -> PyTree:
        return gradient_of(task, variables, examples)

    def update(examples: PyTree, victim: int) -> PyTree:
        return update_of(
            task, variables, examples, learning_rate=learning_rate, num_steps=_LOCAL_STEPS
        )

    def noised(multiplier: float) -> Callable[[PyTree, int], PyTree]:
        def send(examples: PyTree, victim: int) -> PyTree:
            return clipped_and_noised(
                gradient(examples, victim),
                clip_norm=clip_norm,
                noise_multiplier=multiplier,
                key=jax.random.fold_in(jax.random.key(seed), victim),
            )

        return send

    trials = [
        trial("gradient of one patient", 1, gradient),
        trial(f"{_LOCAL_STEPS} local steps on one patient", 1, update),
        *(trial(f"sum over {n} patients", n, gradient) for n in _SUMS if n < len(rows)),
        trial("secure sum over all hospitals", len(rows), gradient),
        *(trial(f"one patient, noise {m:g}", 1, noised(m)) for m in noise_multipliers),
    ]
    mean = np.broadcast_to(x.mean(axis=0), trials[0].originals.shape)
    quality = [psnr(o, m, span=span) for o, m in zip(trials[0].originals, mean, strict=True)]
    return [
        *trials,
        Trial("nothing: the mean patient", trials[0].originals, mean, np.array(quality)),
    ]


def _in_floats(arrays: ClientArrays) -> ClientArrays:
    """Images of 8 bits on the scale of models, on which they have derivatives."""
    x = np.asarray(grey_values(jnp.asarray(arrays.examples["x"])))
    return ClientArrays({**arrays.examples, "x": x}, arrays.sizes)


def _take(arrays: ClientArrays, rows: np.ndarray) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), arrays.examples)


def _dense(seen: PyTree, examples: PyTree, send: Any, victim: int) -> np.ndarray:
    layer = first_dense(seen)
    assert layer is not None  # as the model has been looked at
    return np.nan_to_num(np.asarray(invert_dense(*layer)))


def _matching(task: Task, variables: Variables) -> Callable[..., np.ndarray]:
    def invert(seen: PyTree, examples: PyTree, send: Any, victim: int) -> np.ndarray:
        """One record that would have sent it; of sums, the attacker takes the first label."""
        x = examples["x"][:1]
        others = {key: value[:1] for key, value in examples.items()}

        def sent_by(records: jax.Array) -> PyTree:
            return gradient_of(task, variables, {**others, "x": records})

        noise = jax.random.normal(jax.random.key(victim), x.shape, x.dtype)
        found = invert_by_matching(
            sent_by,
            seen,
            x.mean() + 0.1 * noise,
            total_variation=_TOTAL_VARIATION if x.ndim == 4 else 0.0,
            num_steps=_MATCHING_STEPS,
        )
        return np.asarray(found.records[0])

    return invert

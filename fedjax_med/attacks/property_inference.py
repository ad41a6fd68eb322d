"""Property inference: a hospital's mix of outcomes, from the update that it sends.

References:
  Ganju et al., CCS 2018, https://doi.org/10.1145/3243734.3243834 (properties of training sets)
  Melis et al., S&P 2019, https://arxiv.org/abs/1805.04049 (from updates of federated learning)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.attacks.canaries import Train
from fedjax_med.data import ClientArrays, DataError, FederatedDataset
from fedjax_med.data._tree import map_leaves
from fedjax_med.engine import Experiments, Task
from fedjax_med.engine.contracts import PyTree
from fedjax_med.evaluation import Estimate

_NUM_PROJECTIONS = 64  # of updates with more parameters, in random directions
_PENALTIES = np.logspace(-4, 4, 17)


class PropertyInference(NamedTuple):
    """How well shares of positive patients are inferred from updates of hospitals not seen before.

    Attributes:
      true: float `[hospitals]`, shares.
      inferred: float `[hospitals]`.
      error: mean absolute error, with a 95 % interval over hospitals.
      error_of_guessing: the same of always saying the mean share.
    """

    true: np.ndarray
    inferred: np.ndarray
    error: Estimate
    error_of_guessing: float


def share_from_bias_gradient(bias_gradient: Any, mean_probability: float) -> float:
    """The share of positives, from the gradient of the bias of a single logit.

    The gradient of the mean logistic loss is the mean predicted probability minus the share. A linear
    model that begins at 0 predicts 1/2 for everybody, so its first gradient gives the share away
    exactly; later, the server's model gives a good guess of the mean on any similar patients.
    """
    return float(mean_probability - np.asarray(bias_gradient).reshape(()))


def infer_share(
    train: Train,
    task: Task,
    dataset: FederatedDataset,
    *,
    num_hospitals: int = 256,
    num_patients: int = 50,
    seed: int = 0,
) -> PropertyInference:
    """Learns on shadow hospitals to tell shares of positives from updates, and is judged on others.

    Shadow hospitals are samples of all patients with shares drawn uniformly from 10 to 90 %. Each
    trains alone, so that what `train` returns is its update, as the server would see it; all of them in
    one compiled call. A ridge regression is fitted to half of them.

    Args:
      train: one round of what is attacked, without noise or with it.
      task: binary classification.
      dataset: whose training patients are sampled.
      num_hospitals: shadow hospitals.
      num_patients: of each.
      seed: of samples, projections, and of the one initial model.

    Raises:
      DataError: if outcomes are not 0 and 1 with some of both.
    """
    rng = np.random.default_rng([seed, 0x9A])
    y = np.asarray(dataset.train.examples["y"])
    if y.ndim != 1 or set(np.unique(y).tolist()) != {0, 1}:
        raise DataError(
            f"the share of positives needs outcomes 0 and 1, {dataset.name} has others."
        )
    groups = [np.flatnonzero(y == label) for label in (0, 1)]
    positives = np.round(rng.uniform(0.1, 0.9, num_hospitals) * num_patients).astype(int)
    rows = np.concatenate(
        [
            np.concatenate([rng.choice(groups[1], n), rng.choice(groups[0], num_patients - n)])
            for n in positives
        ]
    )
    sampled = dataset.replace(
        client_names=tuple(f"shadow {number}" for number in range(num_hospitals)),
        train=ClientArrays(
            map_leaves(lambda leaf: leaf[rows], dataset.train.examples),
            np.full(num_hospitals, num_patients),
        ),
        validation=None,
        test=None,
    )
    initial = task.init(seed)
    alone = Experiments(
        tuple(range(seed, seed + num_hospitals)),
        {},
        members=tuple(np.array([number]) for number in range(num_hospitals)),
    )
    run = train(task._replace(init=lambda seed: initial), sampled, alone)
    features = _features(initial.params, run.variables.params, seed)
    share = positives / num_patients
    half = num_hospitals // 2
    from sklearn.linear_model import RidgeCV  # takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
    inferred = regression.fit(features[:half], share[:half]).predict(features[half:])
    return _judge(share[half:], np.clip(inferred, 0, 1), float(share[:half].mean()))


def _features(initial: PyTree, params: PyTree, seed: int) -> np.ndarray:
    """Updates `[hospitals, numbers]`, all of them or their projections in random directions."""

    @jax.jit
    def flatten(initial: PyTree, params: PyTree) -> jax.Array:
        change = jax.tree.map(lambda start, end: start[None] - end, initial, params)
        flat = jnp.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(change)], axis=1)
        if flat.shape[1] <= _NUM_PROJECTIONS:
            return flat
        key = jax.random.key(seed)
        directions = jax.random.normal(key, (flat.shape[1], _NUM_PROJECTIONS), flat.dtype)
        return flat @ directions

    return np.asarray(flatten(initial, params), np.float64)


def _judge(true: np.ndarray, inferred: np.ndarray, guess: float) -> PropertyInference:
    error = np.abs(true - inferred)
    half = 1.96 * error.std(ddof=1) / np.sqrt(len(error))
    mean = float(error.mean())
    return PropertyInference(
        true,
        inferred,
        Estimate(mean, mean - half, mean + half),
        float(np.abs(true - guess).mean()),
    )

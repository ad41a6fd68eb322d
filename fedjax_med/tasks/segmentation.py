"""Segmentation: which pixels, or voxels, belong to what.

References:
  Milletari, Navab and Ahmadi, "V-Net", 3DV 2016. https://arxiv.org/abs/1606.04797
    (the soft Dice loss)
  Isensee et al., "nnU-Net", Nature Methods 18, 2021. https://doi.org/10.1038/s41592-020-01008-z
    (its sum with the cross-entropy)
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_med.engine.contracts import Batch, PyTree, Variables
from fedjax_med.engine.task import Task
from fedjax_med.models.adapters import Model
from fedjax_med.tasks.inputs import initialise

# Voxels added above and below: the Dice of a structure that is not there has a gradient as well.
_SMOOTHING = 1.0


def segmentation(model: Model, example: PyTree, *, label_names: Sequence[str] = ()) -> Task:
    """Cross-entropy plus soft Dice loss; `mask` `[N, *size]` has classes 0 (background), 1, ...

        loss = mean_v(-log p[v, g_v]) + 1 - mean_{c >= 1} D_c
        D_c = (2 sum_v p[v, c] [g_v = c] + 1) / (sum_v p[v, c] + sum_v [g_v = c] + 1)

    over the voxels v of one scan. nnU-Net takes D over a minibatch, which one scan cannot be told
    apart from its neighbours in; here every scan has its own, so padding counts for nothing and
    minibatches may be split over devices. V-Net squares the terms below.

    Metrics:

    - `loss`;
    - `dice`: `2 |P and G| / (|P| + |G|)` of the voxels P called a class and those G that are of it,
      the mean over the classes that are in a scan, over the scans in which one is;
    - `false_alarm_rate`: of the scans in which nothing is, the share in which something is marked;
    - `dice_<class>` for each class in `label_names` but the first, if there is more than one.

    Distances between outlines are judged on the host, see `evaluation.segmentation`.

    Args:
      model: gives logits `[batch, *size, classes]`.
      example: examples like those of the data, for their shapes and dtypes.
      label_names: of the classes, the background first; may be empty.

    Raises:
      ValueError: when traced, if outputs do not fit the masks.
    """
    named = tuple(label_names[1:]) if len(label_names) > 2 else ()

    def outputs_and_losses(variables: Variables, batch: Batch, train: bool):
        logits, state = model.apply(variables, batch, train)
        mask = batch.examples["mask"]
        if logits.shape[:-1] != mask.shape or logits.shape[-1] < 2:
            raise ValueError(
                f"the model must give at least two logits for each of {list(mask.shape)} voxels, got "
                f"shape {list(logits.shape)}."
            )
        true = jax.nn.one_hot(mask, logits.shape[-1], dtype=logits.dtype)
        axes = tuple(range(1, mask.ndim))
        log_p = jax.nn.log_softmax(logits)
        cross_entropy = -jnp.mean(jnp.sum(true * log_p, axis=-1), axis=axes)
        dice = _dice(jnp.exp(log_p), true, _SMOOTHING)
        return logits, true, cross_entropy + 1 - jnp.mean(dice, axis=1), state

    def loss(variables: Variables, batch: Batch):
        _, _, losses, state = outputs_and_losses(variables, batch, True)
        return losses, state

    def metrics(variables: Variables, batch: Batch):
        logits, true, losses, _ = outputs_and_losses(variables, batch, False)
        classes = logits.shape[-1]
        called = jax.nn.one_hot(jnp.argmax(logits, axis=-1), classes, dtype=logits.dtype)
        axes = tuple(range(1, true.ndim - 1))
        present = jnp.any(true[..., 1:] > 0, axis=axes).astype(losses.dtype)
        # Where a class is not there, the denominator is kept from 0; that number counts for nothing.
        dice = present * _dice(called, true, 0.0)
        some = jnp.minimum(jnp.sum(present, axis=1), 1)
        marked = jnp.any(called[..., 1:] > 0, axis=(*axes, true.ndim - 1))
        found = {
            "loss": (losses, jnp.ones_like(losses)),
            "dice": (jnp.sum(dice, axis=1) / jnp.maximum(jnp.sum(present, axis=1), 1), some),
            "false_alarm_rate": (marked * (1 - some), 1 - some),
        }
        of_class = {f"dice_{n}": (dice[:, c], present[:, c]) for c, n in enumerate(named)}
        return {**found, **of_class}

    names = ("loss", "dice", "false_alarm_rate", *(f"dice_{name}" for name in named))
    higher = (False, True, False, *(True for _ in named))
    return Task(initialise(model, example), loss, metrics, names, higher)


def class_counts(mask: np.ndarray, offsets: np.ndarray, num_classes: int) -> np.ndarray:
    """In how many scans of a client a voxel is of a class, float64 `[clients, *size, classes]`.

    Args:
      mask: classes `[N, *size]`, client after client.
      offsets: where clients begin and end `[clients + 1]`; nobody is without scans.
      num_classes: with the background.
    """
    of_class = [
        np.add.reduceat(mask == label, offsets[:-1], axis=0, dtype=np.float64)
        for label in range(num_classes)
    ]
    return np.stack(of_class, axis=-1)


def _dice(called: jax.Array, true: jax.Array, smoothing: float) -> jax.Array:
    """Dice `[batch, classes - 1]` of probabilities and indicators `[batch, *size, classes]`."""
    called, true = called[..., 1:], true[..., 1:]
    axes = tuple(range(1, true.ndim - 1))
    both = jnp.sum(called * true, axis=axes)
    each = jnp.sum(called, axis=axes) + jnp.sum(true, axis=axes)
    below = each + smoothing if smoothing else jnp.maximum(each, 1)
    return (2 * both + smoothing) / below

"""The parameters of a linear model by name, in natural units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_med.data.standardize import Standardizer

INTERCEPT = "intercept"


class Named(NamedTuple):
    """What a linear model's parameters mean.

    Attributes:
      names: of the coefficients `[K]`: columns, then intercepts.
      matrix: float64 `[K, params]`; times the flattened parameters gives the coefficients in
        natural units.
      is_intercept: bool `[K]`.
      feature: int `[params]`, the column that a parameter multiplies; -1 for a bias, which multiplies 1.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    is_intercept: np.ndarray
    feature: np.ndarray


def name_parameters(
    params: Any, feature_names: Sequence[str], standardizer: Standardizer | None
) -> Named:
    """Names for a kernel `[features, outputs]` and a bias `[outputs]`, wherever they lie in `params`.

    With `x = (natural - mean) / scale`, a coefficient per natural unit is `kernel / scale`, and the
    intercept `bias - sum(kernel mean / scale)`.

    Raises:
      ValueError: if `params` are not those of a linear model, or names or standardizer do not fit.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [i for i, (_, leaf) in enumerate(leaves) if np.ndim(leaf) == 2]
    biases = [i for i, (_, leaf) in enumerate(leaves) if np.ndim(leaf) == 1]
    if len(kernels) != 1 or len(biases) > 1 or len(leaves) != 1 + len(biases):
        shapes = {jax.tree_util.keystr(path): list(np.shape(leaf)) for path, leaf in leaves}
        raise ValueError(
            "variables must be of a linear model, a kernel [features, outputs] and at most one bias "
            f"[outputs], got {shapes}."
        )
    num_features, num_outputs = np.shape(leaves[kernels[0]][1])
    names = list(feature_names) or [f"x{i}" for i in range(num_features)]
    if len(names) != num_features:
        raise ValueError(f"feature_names must be {num_features} names, got {len(names)}.")
    mean, scale = np.zeros(num_features), np.ones(num_features)
    if standardizer is not None:
        mean, scale = standardizer.mean, standardizer.scale
        if mean.shape != (num_features,):
            raise ValueError(
                f"standardizer must be one for all hospitals with {num_features} features, got "
                f"statistics of shape {list(mean.shape)}."
            )
    start = np.cumsum([0, *(np.size(leaf) for _, leaf in leaves)])
    kernel = start[kernels[0]] + np.arange(num_features * num_outputs).reshape(num_features, -1)
    of_kernel = np.zeros((num_features, num_outputs, start[-1]))
    for f in range(num_features):
        of_kernel[f, np.arange(num_outputs), kernel[f]] = 1 / scale[f]
    rows, labels = [of_kernel.reshape(-1, start[-1])], _labels(names, num_outputs)
    feature = np.full(start[-1], -1)
    feature[kernel] = np.arange(num_features)[:, None]
    if biases:
        bias = start[biases[0]] + np.arange(num_outputs)
        of_bias = -(mean[:, None, None] * of_kernel).sum(0)
        of_bias[np.arange(num_outputs), bias] = 1
        rows.append(of_bias)
        labels += _labels([INTERCEPT], num_outputs)
    is_intercept = np.arange(len(labels)) >= num_features * num_outputs
    return Named(tuple(labels), np.concatenate(rows), is_intercept, feature)


def _labels(names: Sequence[str], num_outputs: int) -> list[str]:
    if num_outputs == 1:
        return list(names)
    return [f"{name} (output {o})" for name in names for o in range(num_outputs)]

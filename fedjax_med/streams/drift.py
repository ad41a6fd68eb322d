"""Detectors of drift: losses or errors that became worse, from one example to the next. NumPy only.

Each looks at one client's series by itself, so nothing leaves the client, and begins anew after an alarm.

| detector | series | false alarms |
| --- | --- | --- |
| `page_hinkley` | any losses | at the rate that `page_hinkley_threshold` was given |
| `ddm` | errors, 0 or 1 | many where errors are rare, see Gama et al. |
| `adwin` | numbers from 0 to 1 | a share of at most `delta` of examples, in theory; far fewer |

References:
  Page, "Continuous inspection schemes", Biometrika 41, 1954.
  Gama, Medas, Castillo and Rodrigues, "Learning with Drift Detection", SBIA 2004.
  https://doi.org/10.1007/978-3-540-28645-5_29
  Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007.
  https://doi.org/10.1137/1.9781611972771.42
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Warnings(NamedTuple):
    """What `ddm` says of every example, bool `[..., N]`.

    Attributes:
      alarm: a drift.
      warning: a drift may be on its way; also where there is an alarm.
    """

    alarm: np.ndarray
    warning: np.ndarray


def page_hinkley(loss: np.ndarray, *, delta: float, threshold: float) -> np.ndarray:
    """Alarms, bool `[..., N]`, of the Page-Hinkley test for a mean that rises.

        mean <- mean of all losses since the last alarm
        S <- max(0, S + loss - mean - delta), an alarm where S > threshold

    which is the paper's cumulative sum minus its minimum.

    Args:
      loss: `[..., N]`.
      delta: rise that does not count, 0 or more; half the rise that is looked for.
      threshold: above 0.

    Raises:
      ValueError: if a number does not fit, or a loss is not finite.
    """
    loss = _series(loss)
    if not delta >= 0:
        raise ValueError(f"delta must be 0 or more, got {delta!r}.")
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold!r}.")
    return _page_hinkley(loss, delta, threshold)


def page_hinkley_threshold(
    training: np.ndarray,
    *,
    delta: float,
    rate: float,
    length: int = 8,
    num_series: int = 64,
    num_examples: int = 1000,
    seed: int = 0,
) -> float:
    """The smallest threshold with which `page_hinkley` alarms at a share `rate` of examples, or less.

    Found by bisection on series of blocks that are drawn from the training losses with replacement:
    within a block, neighbours stay neighbours.

    Args:
      training: losses without drift `[n]`.
      delta: as of `page_hinkley`.
      rate: of false alarms per example, between 0 and 1.
      length: examples of a block.
      num_series: that are drawn.
      num_examples: of each of them.
      seed: of the draws.

    Raises:
      ValueError: if a number does not fit, or a loss is not finite.
    """
    training = _series(training)
    if not 0 < rate < 1:
        raise ValueError(f"rate must be between 0 and 1, got {rate!r}.")
    if training.ndim != 1 or not 1 <= length <= len(training):
        raise ValueError(
            f"training must be losses [n] and length from 1 to n, got shape {list(training.shape)} "
            f"and length {length!r}."
        )
    generator = np.random.default_rng(seed)
    blocks = -(-num_examples // length)
    start = generator.integers(len(training) - length + 1, size=(num_series, blocks, 1))
    series = training[(start + np.arange(length)).reshape(num_series, -1)[:, :num_examples]]
    low, high = 0.0, float(np.ptp(training)) * 2 + 1e-12
    while _page_hinkley(series, delta, high).mean() > rate:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        if _page_hinkley(series, delta, middle).mean() > rate:
            low = middle
        else:
            high = middle
        if high - low < 0.01 * high:
            break
    return high


def ddm(
    error: np.ndarray, *, warning: float = 2.0, drift: float = 3.0, least: int = 30
) -> Warnings:
    """Gama's drift detection method, for a share of errors that rises.

    With the share `p` of errors among `i` examples and `s = sqrt(p (1 - p) / i)`, there is an alarm where
    `p + s` reaches `p_min + drift * s_min`, those of the example at which their sum was least.

    Args:
      error: 0 or 1 `[..., N]`.
      warning: standard deviations of a warning.
      drift: of an alarm, at least `warning`.
      least: examples after the beginning or an alarm before there is another one; the minimum is not
        looked for before either.

    Raises:
      ValueError: if a number does not fit, or errors are not 0 or 1.
    """
    error = _series(error)
    if not np.isin(error, (0, 1)).all():
        raise ValueError("error must be 0 or 1.")
    if not 0 < warning <= drift or least < 1:
        raise ValueError(
            f"warning must be above 0, drift at least warning and least at least 1, got {warning!r}, "
            f"{drift!r} and {least!r}."
        )
    shape = error.shape[:-1]
    count, wrong = np.zeros(shape), np.zeros(shape)
    best_p, best_s = np.full(shape, np.inf), np.full(shape, np.inf)
    alarm, warned = np.zeros(error.shape, bool), np.zeros(error.shape, bool)
    for i in range(error.shape[-1]):
        count, wrong = count + 1, wrong + error[..., i]
        p = wrong / count
        s = np.sqrt(p * (1 - p) / count)
        ready = count >= least
        lower = ready & (p + s < best_p + best_s)
        best_p, best_s = np.where(lower, p, best_p), np.where(lower, s, best_s)
        # Where nothing has been wrong so far, any error would reach a bound of 0.
        seen = ready & (best_s > 0) & ~lower
        with np.errstate(invalid="ignore"):
            alarm[..., i] = seen & (p + s >= best_p + drift * best_s)
            warned[..., i] = seen & (p + s >= best_p + warning * best_s)
        again = alarm[..., i]
        count, wrong = np.where(again, 0, count), np.where(again, 0, wrong)
        best_p, best_s = np.where(again, np.inf, best_p), np.where(again, np.inf, best_s)
    return Warnings(alarm, warned)


def adwin(
    values: np.ndarray, *, delta: float = 0.002, every: int = 1, least: int = 5
) -> np.ndarray:
    """Alarms, bool `[N]`, of adaptive windowing (ADWIN0) where the mean has risen.

    The window grows by every example, and loses its oldest part whenever two parts of it, `n0` older and
    `n1` younger examples, have means further apart than

        sqrt(2 / m * variance * log(2 / d)) + 2 / (3 m) * log(2 / d),   1 / m = 1 / n0 + 1 / n1,   d = delta / n

    (section 3.1 of the paper, with the bound for small variances). A fall cuts the window, too, but is no
    alarm: losses fall while a model learns.

    Args:
      values: from 0 to 1 `[N]`.
      delta: confidence, between 0 and 1.
      every: examples between two looks.
      least: examples of either part.

    Raises:
      ValueError: if a number does not fit, or a value is not from 0 to 1.
    """
    values = _series(values)
    if values.ndim != 1 or values.min(initial=0) < 0 or values.max(initial=0) > 1:
        raise ValueError("values must be numbers from 0 to 1, [N].")
    if not 0 < delta < 1 or every < 1 or least < 1:
        raise ValueError(
            f"delta must be between 0 and 1, every and least at least 1, got {delta!r}, {every!r} and "
            f"{least!r}."
        )
    alarm, begin = np.zeros(len(values), bool), 0
    for i in range(every - 1, len(values), every):
        while i + 1 - begin >= 2 * least:
            window = values[begin : i + 1]
            n = len(window)
            older = np.arange(least, n - least + 1)
            sums = window.cumsum()
            before = sums[older - 1] / older
            after = (sums[-1] - sums[older - 1]) / (n - older)
            inverse = 1 / older + 1 / (n - older)
            log = np.log(2 * n / delta)
            bound = np.sqrt(2 * inverse * window.var() * log) + 2 / 3 * inverse * log
            beyond = np.abs(after - before) - bound
            if beyond.max() <= 0:
                break
            cut = int(beyond.argmax())
            alarm[i] |= after[cut] > before[cut]
            begin += int(older[cut])
    return alarm


def _page_hinkley(loss: np.ndarray, delta: float, threshold: float) -> np.ndarray:
    shape = loss.shape[:-1]
    count, total, excess = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    alarm = np.zeros(loss.shape, bool)
    for i in range(loss.shape[-1]):
        count, total = count + 1, total + loss[..., i]
        excess = np.maximum(0.0, excess + loss[..., i] - total / count - delta)
        alarm[..., i] = excess > threshold
        keep = ~alarm[..., i]
        count, total, excess = count * keep, total * keep, excess * keep
    return alarm


def _series(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim < 1 or not np.isfinite(values).all():
        raise ValueError("a series must be finite numbers [..., N].")
    return values

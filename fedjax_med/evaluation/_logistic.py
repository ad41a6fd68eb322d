"""Logistic regressions on one variable, of the same cases with many weights at once.

Resamples differ little from the cases as they are. So the loss is expanded around the fit of these
into a Taylor series, whose coefficients for all resamples are one matrix product; Newton's method on
the series is a few operations on a handful of numbers. Where the last order of the series still
matters, the fit is finished by Newton's method on the loss itself.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit

from fedjax_med.evaluation._weighted import as_slice, columns

_MAX_NEWTON_STEPS = 60
_ORDER = 10  # of the derivatives in the series
# What orders that are left out may move a coefficient by.
_LEFT = 1e-11


class Fits:
    """Regressions `logit P(y) = a + b x` (or `a + x`) of given cases.

    Attributes:
      x: float64 `[N]`.
      y: bool `[N]`.
      with_slope: whether `b` is estimated or 1.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, with_slope: bool):
        """Sorts the cases; the expansion waits for the first use with several weights."""
        self.x, self.y, self.with_slope = x, y, with_slope
        self._sides = []
        for side in (np.flatnonzero(y), np.flatnonzero(~y)):
            order = side[np.argsort(-x[side], kind="stable")]
            self._sides.append((as_slice(order), x[order]))
        self._series: _Series | None = None
        self._expanded = False

    def __call__(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intercepts and slopes `[M]` for weights `[M, N]`; NaN where there is no finite fit."""
        intercept, slope = np.full(len(weight), np.nan), np.full(len(weight), np.nan)
        rows = np.flatnonzero(self._exists(weight))
        if rows.size:
            chosen = weight if len(rows) == len(weight) else weight[rows]
            theta = self._solve(chosen)
            intercept[rows] = theta[:, 0]
            slope[rows] = theta[:, 1] if self.with_slope else 1.0
        return intercept, slope

    def _exists(self, weight: np.ndarray) -> np.ndarray:
        """Where both labels count and, with a slope, no threshold parts them.

        Then the maximum likelihood is attained. For one covariate: strict overlap both ways.

        References:
          Albert and Anderson, Biometrika 71, 1984.
        """
        ends = []
        for index, x in self._sides:
            if not x.size:
                return np.zeros(len(weight), bool)
            counts = columns(weight, index) > 0
            first, last = counts.argmax(-1), x.size - 1 - counts[:, ::-1].argmax(-1)
            ends.append((counts[np.arange(len(weight)), first], x[first], x[last]))
        (any_positive, high_positive, low_positive), (any_negative, high_negative, low_negative) = (
            ends
        )
        exists = any_positive & any_negative
        if self.with_slope:
            exists &= (high_negative > low_positive) & (high_positive > low_negative)
        return exists

    def _solve(self, weight: np.ndarray) -> np.ndarray:
        start = np.zeros((len(weight), 1 + self.with_slope))
        if len(weight) == 1:
            return self._newton(weight, start)
        if not self._expanded:
            self._expanded = True
            everyone = np.ones((1, len(self.x)))
            if self._exists(everyone)[0]:
                at = self._newton(everyone, np.zeros((1, 1 + self.with_slope)))
                self._series = _Series(self.x, self.y, at[0])
        if self._series is None:
            return self._newton(weight, start)
        theta, good = self._series.solve(weight)
        if not good.all():
            rows = np.flatnonzero(~good)
            theta[rows] = self._newton(weight[rows], theta[rows])
        return theta

    def _newton(self, weight: np.ndarray, theta: np.ndarray) -> np.ndarray:
        """Newton's method from a start `[M, 1 or 2]` on the convex loss.

        Steps are halved while they do not lower the loss, which is not looked at where it must fall:
        as `|psi'''| <= psi''`, a step that moves no margin by more than 1 lowers it.

        References:
          Bach, Electronic Journal of Statistics 4, 2010, proposition 1.
        """
        x, y, with_slope = self.x, self.y, self.with_slope
        w = weight / weight.sum(-1, keepdims=True)
        sign = np.where(y, 1.0, -1.0)

        def margin(theta: np.ndarray) -> np.ndarray:
            return theta[:, :1] + (theta[:, 1:] * x if with_slope else x)

        def loss(margin: np.ndarray) -> np.ndarray:
            return np.einsum("mn,mn->m", w, np.logaddexp(0, -sign * margin))

        ends = np.array([x.min(), x.max()]) if with_slope else np.zeros(1)
        at = margin(theta)
        for _ in range(_MAX_NEWTON_STEPS):
            p = expit(at)
            error, bend = w * (p - y), w * (p * (1 - p))
            gradient = np.stack([error.sum(-1), error @ x], -1)[:, : theta.shape[1]]
            step = _newton_step(gradient, bend.sum(-1), bend @ x, bend @ x**2)
            if np.abs(step).max() < 1e-7:  # the next one would be its square
                return theta - step
            move = step[:, :1] + step[:, -1:] * ends if with_slope else step
            if np.abs(move).max() <= 1:  # a step that moves no margin by more lowers the loss
                theta = theta - step
                at = margin(theta)
                continue
            value = loss(at)
            for _ in range(40):
                at = margin(theta - step)
                worse = loss(at) > value + 1e-14
                if not worse.any():
                    break
                step = np.where(worse[:, None], step / 2, step)
            theta = theta - step
        return theta


def _newton_step(
    gradient: np.ndarray, b0: np.ndarray, b1: np.ndarray, b2: np.ndarray
) -> np.ndarray:
    """`hessian^-1 gradient` `[M, 1 or 2]`, for the Hessian [[b0, b1], [b1, b2]] or [[b0]]."""
    b0 = b0 + 1e-14  # saturated probabilities have no curvature
    if gradient.shape[1] == 1:
        return gradient / b0[:, None]
    b2 = b2 + 1e-14
    g0, g1 = gradient.T
    return np.stack([b2 * g0 - b1 * g1, b0 * g1 - b1 * g0], -1) / (b0 * b2 - b1**2)[:, None]


class _Series:
    """The Taylor series of the mean loss around a fit, for any weights.

    With `t = (x - mean) / sd` and `psi(u) = log(1 + exp(u))`, it has the coefficients

        m[d, k] = sum_i weight[i] psi^(d)(u[i]) t[i]**k,  d = 1, ..., order,  k = 0, ..., d

    in which `psi'` is `p - y`; a derivative of the loss, `j` times by the intercept and `k` by the
    slope (of `t`), is `m[j + k, k]`. A move of both by at most `r` leaves an error of the gradient
    of about `mean(|psi^(order + 1)| (1 + |t|)**(order + 1)) r**order / order!`, so the first two
    orders tell how many are needed.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, at: np.ndarray):
        """Computes what the weights are to be multiplied with, around parameters `at`."""
        self._with_slope = len(at) == 2
        self._mean, self._sd = (float(x.mean()), float(x.std())) if self._with_slope else (0.0, 1.0)
        slope = at[1] if self._with_slope else 1.0
        p = expit(at[0] + slope * x)
        t = (x - self._mean) / self._sd
        self._at = at
        highest = _ORDER if self._with_slope else 0
        table, place, reach = [], np.full((_ORDER + 2, _ORDER + 2), -1), []
        derivative = np.polynomial.Polynomial([0.0, 1.0])  # psi' as a polynomial in p
        for d in range(1, _ORDER + 2):
            values = derivative(p) - (y if d == 1 else 0.0)
            size = 1 + np.abs(t) if self._with_slope else 1.0
            reach.append(float(np.mean(np.abs(values) * size**d)))
            for k in range(min(d, highest) + 1 if d <= _ORDER else 0):
                place[d, k] = len(table)
                table.append(values * t**k)
            derivative = derivative.deriv() * np.polynomial.Polynomial([0.0, 1.0, -1.0])
        self._tables = [np.stack(c, -1) for c in (table[: place[3, 0]], table[place[3, 0] :])]
        self._columns = [int(place[d].max()) + 1 for d in range(_ORDER + 1)]
        j, k = np.mgrid[:_ORDER, : _ORDER if self._with_slope else 1]
        of = lambda more, by_b: place[np.minimum(j + k + more, _ORDER + 1), k + by_b]
        self._gradient = [of(1, b) for b in range(1 + self._with_slope)]
        self._hessian = [of(2, b) for b in range(1 + 2 * self._with_slope)]
        factorial = np.array([math.factorial(n) for n in range(_ORDER + 1)], np.float64)
        self._scale = 1 / (factorial[j] * factorial[k])
        bend = [self._tables[0][:, place[2, k]].mean() for k in range(len(self._hessian))]
        curvature = bend[0]
        if self._with_slope:
            curvature = np.linalg.eigvalsh([[bend[0], bend[1]], [bend[1], bend[2]]])[0]
        # Error of a parameter that is left after 1, 2, ... orders of the gradient, over `r**order`.
        self._left = np.array(reach[1:]) / factorial[1:] / max(float(curvature), 1e-300)

    def solve(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parameters `[M, 1 or 2]` for weights `[M, N]`, and where they are as good as exact.

        Where they are not, they are a start for Newton's method.
        """
        total = weight.sum(-1, keepdims=True)
        columns_of = self._columns[_ORDER]
        moments = np.zeros((len(weight), columns_of + 1))  # the last is the place -1
        moments[:, : self._columns[2]] = weight @ self._tables[0] / total
        move, good = self._newton(moments)
        # Somewhat further and twice the error, as the first orders and the mean over all may be off.
        far = 1.25 * np.abs(move).max(-1)
        left = 2 * self._left * far[:, None] ** np.arange(1, _ORDER + 1)
        enough = left < _LEFT
        reached = enough.any(-1)
        order = int(enough[reached].argmax(-1).max(initial=0)) + 1
        if order > 2:
            wanted = slice(self._columns[2], self._columns[order])
            table = self._tables[1][:, : wanted.stop - wanted.start]
            moments[:, wanted] = weight @ table / total
            move, good = self._newton(moments)
            good &= np.abs(move).max(-1) <= far
        theta = np.where((good & (far < 2))[:, None], move, 0.0)
        good &= reached
        if self._with_slope:
            theta[:, 1] /= self._sd
            theta[:, 0] -= self._mean * theta[:, 1]
        return self._at + theta, good

    def _newton(self, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The optimum of the series as a move `[M, 1 or 2]` from its centre, and where there is one."""
        gradient_of = [moments[:, index] for index in self._gradient]
        hessian_of = [moments[:, index] for index in self._hessian]
        j, k = (np.arange(n) for n in self._scale.shape)
        move = step = np.zeros((len(moments), len(self._at)))
        with np.errstate(all="ignore"):  # a series that diverges is not good
            for _ in range(_MAX_NEWTON_STEPS):
                terms = move[:, :1, None] ** j[:, None] * self._scale
                if self._with_slope:
                    terms = terms * move[:, 1:, None] ** k
                sums = [np.einsum("mjk,mjk->m", terms, c) for c in gradient_of]
                bend = [np.einsum("mjk,mjk->m", terms, c) for c in hessian_of]
                step = _newton_step(np.stack(sums, -1), *(bend * 3)[:3])
                move = move - step
                if not (np.abs(step) >= 1e-12).any():
                    break
        return move, np.abs(step).max(-1) < 1e-11

"""Survival likelihoods in float64, written as their definitions: loops over patients."""

import numpy as np


def partial_likelihood(scores, time, event, ties):
    """Negative log partial likelihood of one hospital."""
    scores, time = np.float64(scores), np.float64(time)
    total = 0.0
    if ties == "order":  # FLamby: the longest time first, equal ones as they lie
        order = sorted(range(len(time)), key=lambda i: -time[i])
        for rank, i in enumerate(order):
            if event[i]:
                total += np.logaddexp.reduce(scores[order[: rank + 1]] - scores[i])
        return total
    for t in np.unique(time[event > 0]):
        at_risk = scores[time >= t]
        tied = scores[(time == t) & (event > 0)]
        top = at_risk.max()
        risk, own = np.exp(at_risk - top).sum(), np.exp(tied - top).sum()
        for k in range(len(tied)):
            share = k / len(tied) if ties == "efron" else 0.0
            total += np.log(risk - share * own) + top - tied[k]
    return total


def concordance(risk, time, event):
    """Concordant and comparable pairs of one minibatch."""
    concordant = comparable = 0.0
    for i in np.flatnonzero(event):
        for j in range(len(time)):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                comparable += 1
                concordant += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return concordant, comparable


def discrete_likelihood(logits, time, event, edges):
    """Negative log-likelihood `[N]` of logistic hazards; see `tasks.discrete_time_survival`."""
    hazard = 1 / (1 + np.exp(-np.float64(logits)))
    losses = np.zeros(len(time))
    for i in range(len(time)):
        lower = -np.inf
        for k, upper in enumerate(edges):
            if event[i] and lower < time[i] <= upper:
                losses[i] -= np.log(hazard[i, k])
            elif time[i] > upper or (time[i] == upper and not event[i]):
                losses[i] -= np.log(1 - hazard[i, k])
            lower = upper
    return losses

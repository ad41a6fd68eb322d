"""Cyclic weight transfer: one model travels from hospital to hospital.

References:
  Chang et al., "Distributed deep learning networks among institutions for medical imaging", JAMIA
  25, 2018, section "Cyclical weight transfer". https://doi.org/10.1093/jamia/ocy017
"""

import optax

from fedjax_med.algorithms.fed_opt import fed_opt
from fedjax_med.algorithms.local_training import equal
from fedjax_med.engine.contracts import FederatedAlgorithm, GradientFn


def cyclic_weight_transfer(
    gradient_fn: GradientFn, client_optimizer: optax.GradientTransformation
) -> FederatedAlgorithm:
    """Builds cyclic weight transfer: a client trains the model it was handed and hands it on.

    For cohorts of one client, as `engine.cohorts.cyclic()` draws them: a round is one visit, a cycle
    as many rounds as there are clients. In the same number of rounds, a model has seen a fraction
    of the local steps that FedAvg has, but no two sets of weights are ever averaged. What was
    learned last counts most, so the last clients of a run leave their mark.

    With larger cohorts, several models set out from the same one and are averaged at the end of the
    round, all alike. A client whose model is not finite hands on the one it was given.

    Args:
      gradient_fn: from `engine.gradient(loss)`.
      client_optimizer: any optax optimizer; its state stays with no one and starts new every round.
    """
    return fed_opt(gradient_fn, client_optimizer, optax.sgd(1.0), weighting=equal)

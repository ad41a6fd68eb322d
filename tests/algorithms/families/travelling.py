"""One model that goes from hospital to hospital."""

import optax

from fedjax_med import algorithms
from tests.algorithms.families.listed import Listed

ALGORITHMS = {
    "cyclic_weight_transfer": Listed(
        lambda task, lr: algorithms.cyclic_weight_transfer(
            task.gradient, optax.sgd(lr, momentum=0.9)
        ),
        {"lr": 0.1},
        variant=True,
    ),
}

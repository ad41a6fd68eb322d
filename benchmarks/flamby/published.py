"""What is compared with: the published numbers of FLamby, and those of an independent NumPy program.

Published are the means over five seeds of `flamby/results/*/*.csv` in FLamby's repository, the source
of the figures of its paper, per centre and averaged over centres, each counted once. The NumPy
program follows the same protocol with 20 seeds (TCGA-BRCA: 10), 5 for training pooled or alone.

References:
  Ogier du Terrail et al., "FLamby: Datasets and Benchmarks for Cross-Silo Federated Learning in
  Realistic Healthcare Settings", NeurIPS 2022. https://arxiv.org/abs/2210.04620
  https://github.com/owkin/FLamby
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A row of FLamby's results.

    Attributes:
      mean: over centres and seeds.
      sd: over seeds, of the mean over centres; None where not given.
      centres: mean over seeds of each centre; empty where not given.
    """

    mean: float
    sd: float | None
    centres: tuple[float, ...] = ()


PUBLISHED: dict[str, dict[str, Published]] = {
    "heart-disease": {
        "FedAvg": Published(0.685, 0.028, (0.731, 0.719, 0.650, 0.640)),
        "FedProx": Published(0.685, 0.028, (0.731, 0.719, 0.650, 0.640)),
        "SCAFFOLD": Published(0.684, 0.028, (0.727, 0.719, 0.650, 0.640)),
        "Cyclic": Published(0.718, 0.029, (0.758, 0.762, 0.713, 0.640)),
        "FedAdagrad": Published(0.731, 0.013, (0.760, 0.753, 0.738, 0.676)),
        "FedAdam": Published(0.726, 0.014, (0.752, 0.746, 0.738, 0.667)),
        "FedYogi": Published(0.731, 0.013, (0.760, 0.753, 0.738, 0.676)),
        "Pooled": Published(0.735, 0.003, (0.783, 0.764, 0.750, 0.644)),
        "Local 0": Published(0.722, None, (0.746, 0.760, 0.725, 0.658)),
        "Local 1": Published(0.629, None, (0.746, 0.746, 0.525, 0.498)),
        "Local 2": Published(0.567, None, (0.481, 0.391, 0.725, 0.671)),
        "Local 3": Published(0.637, None, (0.577, 0.467, 0.800, 0.702)),
    },
    "tcga-brca": {
        "FedAvg": Published(0.732, 0.181, (0.745, 0.627, 0.691, 0.675, 0.787, 0.867)),
        "FedProx": Published(0.729, 0.168, (0.715, 0.668, 0.667, 0.667, 0.792, 0.867)),
        "SCAFFOLD": Published(0.687, 0.036, (0.593, 0.755, 0.676, 0.454, 0.911, 0.733)),
        "Cyclic": Published(0.658, 0.043, (0.530, 0.818, 0.704, 0.425, 0.872, 0.600)),
        "FedAdagrad": Published(0.813, 0.005, (0.848, 0.623, 0.872, 0.679, 0.855, 1.0)),
        "FedAdam": Published(0.815, 0.026, (0.849, 0.655, 0.882, 0.604, 0.902, 1.0)),
        "FedYogi": Published(0.815, 0.026, (0.849, 0.655, 0.882, 0.604, 0.902, 1.0)),
        "Pooled": Published(0.676, 0.095, (0.773, 0.582, 0.706, 0.629, 0.766, 0.600)),
        "Local 0": Published(0.728, None),
        "Local 1": Published(0.750, None),
        "Local 2": Published(0.498, None),
        "Local 3": Published(0.656, None),
        "Local 4": Published(0.712, None),
        "Local 5": Published(0.691, None),
    },
}

# Mean over centres of the NumPy program.
RERUN: dict[str, dict[str, float]] = {
    "heart-disease": {
        "FedAvg": 0.691,
        "FedProx": 0.691,
        "SCAFFOLD": 0.691,
        "Cyclic": 0.722,
        "FedAdagrad": 0.735,
        "FedAdam": 0.733,
        "FedYogi": 0.735,
        "Pooled": 0.736,
        "Local 0": 0.711,
        "Local 1": 0.627,
        "Local 2": 0.602,
        "Local 3": 0.650,
    },
    "tcga-brca": {
        "FedAvg": 0.772,
        "FedProx": 0.759,
        "SCAFFOLD": 0.736,
        "Cyclic": 0.582,
        "FedAdagrad": 0.810,
        "FedAdam": 0.795,
        "FedYogi": 0.795,
        "Pooled": 0.666,
        "Local 0": 0.679,
        "Local 1": 0.725,
        "Local 2": 0.490,
        "Local 3": 0.679,
        "Local 4": 0.715,
        "Local 5": 0.691,
    },
}

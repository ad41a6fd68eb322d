"""What FLamby's differentially private runs on Fed-Heart-Disease spend, by the accounting here.

References:
  FLamby at edacf54, `flamby/dp_example` and `flamby/strategies/utils.py`: Opacus is asked for the noise of
  `epochs=nrounds` epochs, and every round takes `num_updates` steps.
  https://github.com/owkin/FLamby
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.records import Output, environment, parser, shown_command

# Training records of its centres, minibatch, rounds and steps of a round (Fed-Heart-Disease).
CENTRES = {"Cleveland": 199, "Hungary": 172, "Switzerland": 30, "VA Long Beach": 85}
BATCH_SIZE, ROUNDS, STEPS = 4, 15, 100
# Accuracy of FedAvg, mean of centres, by (epsilon, delta), from `results_fed_heart_disease.csv` (0.7125
# without privacy).
PUBLISHED = {(0.1, 1e-2): 0.6673, (0.1, 1e-3): 0.6292, (1.0, 1e-3): 0.7015, (1.0, 1e-4): 0.6853}
ASKED = ((0.1, 1e-2), (0.1, 1e-3), (1.0, 1e-3), (1.0, 1e-4), (5.0, 1e-3), (5.0, 1e-4))


def row(centre: str, epsilon: float, delta: float) -> dict[str, float | int | str]:
    """What a centre is asked to spend, what it spends, and the noise that it needs."""
    from fedjax_med.privacy.accounting import calibrate, epsilon_after
    from fedjax_med.privacy.releases import PoissonRelease

    records = CENTRES[centre]
    batches = -(-records // BATCH_SIZE)  # of an epoch; Opacus samples with one over their number
    release = PoissonRelease(1 / batches)
    noise = calibrate(release, epsilon, delta, ROUNDS * batches)
    steps = ROUNDS * STEPS
    return {
        "centre": centre,
        "records": records,
        "epsilon": epsilon,
        "delta": delta,
        "noise_of_epochs": noise,
        "epsilon_of_steps": epsilon_after(release, noise, steps, delta).value,
        "noise_of_steps": calibrate(release, epsilon, delta, steps),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes a line for each centre, epsilon and delta."""
    arguments = sys.argv[1:] if arguments is None else arguments
    made = parser("flamby.privacy", __doc__)
    output = Output(made.parse_args(arguments).json, made)
    about = {"command": shown_command("flamby.privacy", arguments), **environment()}
    for epsilon, delta in ASKED:
        for centre in CENTRES:
            output.write({**row(centre, epsilon, delta), **about})


if __name__ == "__main__":
    main()

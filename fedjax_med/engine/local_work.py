"""How much local work a client does per round, and where in its data it stands."""

import dataclasses

import numpy as np


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Whole epochs over the client's own data, the last short minibatch kept.

    Attributes:
      num_epochs: epochs per round.
      batch_size: examples of a minibatch.
      shuffle: a new order without replacement every epoch; False keeps the stored order.
    """

    num_epochs: int
    batch_size: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_batch_size(self.batch_size)
        if self.num_epochs < 1:
            raise ValueError(f"num_epochs must be at least 1, got {self.num_epochs}.")

    def num_steps(self, num_examples):
        """Local steps of a round for clients of these sizes (NumPy or JAX integers)."""
        return self.num_epochs * -(-num_examples // self.batch_size)

    def cursor(self, num_examples: np.ndarray, rounds_before: np.ndarray):
        """(first_epoch, first_step) of a client that took part in `rounds_before` rounds."""
        return rounds_before * self.num_epochs, np.zeros_like(rounds_before)


@dataclasses.dataclass(frozen=True)
class Steps:
    """A fixed number of minibatches whose place in the client's data carries over.

    The next round goes on where this one stopped; at the end of the data the last short
    minibatch is kept and a new shuffled epoch begins (FLamby's protocol).

    Attributes:
      steps: minibatches per round, the same for every client.
      batch_size: examples of a minibatch.
      shuffle: a new order without replacement every epoch; False keeps the stored order.
    """

    steps: int
    batch_size: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_batch_size(self.batch_size)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")

    def num_steps(self, num_examples):
        """Local steps of a round for clients of these sizes (NumPy or JAX integers)."""
        return 0 * num_examples + self.steps

    def cursor(self, num_examples: np.ndarray, rounds_before: np.ndarray):
        """(first_epoch, first_step) of a client that took part in `rounds_before` rounds."""
        steps_per_epoch = -(-num_examples // self.batch_size)
        return np.divmod(rounds_before * self.steps, steps_per_epoch)


@dataclasses.dataclass(frozen=True)
class PoissonSteps:
    """A fixed number of minibatches, each a new Poisson sample of the client's examples.

    Every example is drawn independently with probability `min(1, expected / n)`, n the client's
    examples; of more than `batch_size`, a uniformly random subset is kept. It is the sampling for
    which privacy amplification is proved, in arrays of a fixed shape.

    Attributes:
      steps: minibatches per round, the same for every client.
      expected: expected examples of a minibatch, before truncation.
      batch_size: most examples of a minibatch.
    """

    steps: int
    expected: float | int
    batch_size: int

    def __post_init__(self) -> None:
        """Checks the arguments."""
        _check_batch_size(self.batch_size)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")
        if not 0 < self.expected <= self.batch_size:
            raise ValueError(
                f"expected must be positive and at most batch_size {self.batch_size}, got "
                f"{self.expected!r}."
            )

    def num_steps(self, num_examples):
        """Local steps of a round for clients of these sizes (NumPy or JAX integers)."""
        return 0 * num_examples + self.steps

    def cursor(self, num_examples: np.ndarray, rounds_before: np.ndarray):
        """(0, 0): samples of different steps have nothing to do with each other."""
        return np.zeros_like(rounds_before), np.zeros_like(rounds_before)


LocalWork = Epochs | Steps | PoissonSteps


def epochs(num_epochs: int = 1, *, batch_size: int, shuffle: bool = True) -> Epochs:
    """`num_epochs` passes over the client's data per round; see `Epochs`."""
    return Epochs(num_epochs, batch_size, shuffle)


def steps(num_steps: int, *, batch_size: int, shuffle: bool = True) -> Steps:
    """`num_steps` minibatches per round, carried over between rounds; see `Steps`."""
    return Steps(num_steps, batch_size, shuffle)


def poisson_steps(num_steps: int, *, expected: float | int, batch_size: int) -> PoissonSteps:
    """`num_steps` Poisson samples of `expected` examples on average; see `PoissonSteps`."""
    return PoissonSteps(num_steps, expected, batch_size)

"""The methods that are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.imaging.setting import LEARNING_RATE


class Method(NamedTuple):
    """A method, and how its hospitals are judged.

    Attributes:
      build: `(task) -> algorithm`.
      norm: of the network.
      personal: whether each hospital is judged by a model of its own.
      judged_as: another way to judge the same training: title, and `(task, algorithm) -> algorithm`.
    """

    build: Callable[[Any], Any]
    norm: str = "group"
    personal: bool = False
    judged_as: tuple[str, Callable[[Any, Any], Any]] | None = None


def _fed_avg(task: Any) -> Any:
    import optax

    from fedjax_med import algorithms

    return algorithms.fed_avg(task.gradient, optax.adam(LEARNING_RATE))


def _of(name: str, **options: Any) -> Callable[[Any], Any]:
    def build(task: Any) -> Any:
        import optax

        from fedjax_med import algorithms

        return getattr(algorithms, name)(task.gradient, optax.adam(LEARNING_RATE), **options)

    return build


def _own_normalisation(task: Any) -> Any:
    import optax

    from fedjax_med import algorithms

    # Hospitals are counted by their images, as by the other treatments; the paper counts them alike.
    return algorithms.fed_bn(
        task.gradient, optax.adam(LEARNING_RATE), weighting=algorithms.by_examples
    )


def _re_estimated(task: Any, algorithm: Any) -> Any:
    from fedjax_med import algorithms

    return algorithms.re_estimated(algorithm, task.loss)


FEDERATED: Mapping[str, Method] = {
    "FedAvg": Method(_fed_avg),
    "FedProx": Method(_of("fed_prox", mu=0.1)),
    "FedAdam": Method(_of("fed_adam", server_learning_rate=0.03)),
    "FedAvg, batch norm": Method(
        _fed_avg, norm="batch", judged_as=("FedAvg, batch norm re-estimated", _re_estimated)
    ),
    "local only": Method(_of("local_only"), personal=True),
}
TREATMENTS: Mapping[str, Method] = {
    "group norm": Method(_fed_avg),
    "batch norm, statistics averaged": Method(
        _fed_avg, norm="batch", judged_as=("batch norm, statistics re-estimated", _re_estimated)
    ),
    "batch norm, layers local (FedBN)": Method(_own_normalisation, norm="batch", personal=True),
}

"""The weighted mean of updates that the server sees only the sum of."""

from __future__ import annotations

from fedjax_med.engine.contracts import Aggregator
from fedjax_med.secure.fixed_point import fixed_point_mean
from fedjax_med.secure.masking import Dropout, masked


def secure_mean(
    num_clients: int,
    *,
    bound: float,
    max_weight: int = 1,
    fraction_bits: int | None = None,
    neighbours: int = 10,
    threshold: int | None = None,
    min_survivors: int = 2,
    dropout: Dropout = 0.0,
    extras_bound: float | None = None,
) -> Aggregator:
    """`fixed_point_mean` through masks: an aggregator for any algorithm in place of `weighted_mean`.

        fed_avg(gradient_fn, optimizer, aggregator=secure_mean(10, bound=1.0, max_weight=500))

    The arithmetic, the failures and the cost of the protocol are executed; its trust is not: all
    keys lie in one process. See `fixed_point_mean` and `masked` for the arguments, and
    `docs/secure_aggregation.md` for what is protected.

    Raises:
      ValueError: see `fixed_point_mean` and `masked`.
    """
    return masked(
        fixed_point_mean(
            num_clients, bound=bound, max_weight=max_weight, fraction_bits=fraction_bits
        ),
        num_clients=num_clients,
        neighbours=neighbours,
        threshold=threshold,
        min_survivors=min_survivors,
        dropout=dropout,
        extras_bound=extras_bound,
    )

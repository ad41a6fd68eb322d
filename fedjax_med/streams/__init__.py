"""Data that arrive over time: models kept current, judged before they learn, drift found and reported.

stream = in_periods(dataset, 20)
followed = follow(fed_avg(task.gradient, optax.sgd(0.1)), stream, task=task, model=model,
                  rounds=3, local_work=epochs(1, batch_size=32), window=5)
losses = cross_entropy(followed.outputs[0], followed.labels)
watched = watch(losses, followed.period, followed.client, stream, rate=0.01)
print(table(watched, stream))
"""

from fedjax_med.streams.arrivals import Stream, by_time, in_periods
from fedjax_med.streams.drift import adwin, ddm, page_hinkley, page_hinkley_threshold
from fedjax_med.streams.follow import Followed, follow
from fedjax_med.streams.watch import Watched, cross_entropy, table, watch

__all__ = [
    "Followed",
    "Stream",
    "Watched",
    "adwin",
    "by_time",
    "cross_entropy",
    "ddm",
    "follow",
    "in_periods",
    "page_hinkley",
    "page_hinkley_threshold",
    "table",
    "watch",
]

"""What becomes of the clients' updates: sums, robust rules, and transforms in front of them."""

from fedjax_med.aggregation.chain import ClientTransform, chain
from fedjax_med.aggregation.clipping import clip_by_client_norm
from fedjax_med.aggregation.extras import ExtrasState, with_extras
from fedjax_med.aggregation.mean import mean, weighted_mean
from fedjax_med.aggregation.median import coordinate_median
from fedjax_med.aggregation.mgda import mgda, min_norm_shares
from fedjax_med.aggregation.rows import mean_over_holders

__all__ = [
    "ClientTransform",
    "ExtrasState",
    "chain",
    "clip_by_client_norm",
    "coordinate_median",
    "mean",
    "mean_over_holders",
    "mgda",
    "min_norm_shares",
    "weighted_mean",
    "with_extras",
]

"""Products of sequences and images with a weight, whose weight gradient stays one plain product."""

from fedjax_med_kernels.dense.product import dense_product

__all__ = ["dense_product"]

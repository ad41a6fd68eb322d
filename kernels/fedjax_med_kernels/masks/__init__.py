"""ChaCha20 keystreams, their signed sums, and masking modulo a power of two."""

from fedjax_med_kernels.masks.masking import add_mask, keystream, subtract_mask, sum_of_masks

__all__ = ["add_mask", "keystream", "subtract_mask", "sum_of_masks"]

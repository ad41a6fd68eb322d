"""Any model at full speed when every client has its own weights: `client_batched(fn)`."""

from fedjax_med_kernels.client_batched.operations import KEEP, Choice, Operation, Record, summarise
from fedjax_med_kernels.client_batched.rewrite import client_batched

__all__ = ["KEEP", "Choice", "Operation", "Record", "client_batched", "summarise"]

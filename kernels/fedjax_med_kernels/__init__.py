"""Kernels for federated rounds: each folder holds a reference, its implementations and its cases."""

"""Federated classification of small medical images, and what becomes of batch statistics."""

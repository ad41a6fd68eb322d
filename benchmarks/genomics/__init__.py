"""Federated genetics on HapMap 3 against pooled, local and naive analyses."""

"""A study of every clinical table: federated, alone, pooled, trivial, and hospitals left out."""

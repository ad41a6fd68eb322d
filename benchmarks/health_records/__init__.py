"""Models of visits on health records: federated methods, baselines, and what order is worth."""

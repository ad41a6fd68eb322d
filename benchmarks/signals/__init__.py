"""Heart beats, rhythms and voices of single patients: federated, personal, alone, pooled, trivial."""

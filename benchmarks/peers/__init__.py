"""Other ways to compute the same rounds, measured in turn with the engine."""

"""Training runs: the only room that joins algorithm, optimizer, scaler and environment."""

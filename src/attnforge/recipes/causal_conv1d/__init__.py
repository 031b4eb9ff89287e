"""causal-conv1d: only data."""

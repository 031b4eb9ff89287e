"""causal-conv1d: data alone."""

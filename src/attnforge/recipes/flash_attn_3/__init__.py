"""FlashAttention 3, in its present layout."""

"""FlashAttention 4: data alone."""

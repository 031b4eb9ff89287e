"""FlashAttention 4: only data."""

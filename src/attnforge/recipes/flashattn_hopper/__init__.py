"""FlashAttention 3, in the layout of 2024."""

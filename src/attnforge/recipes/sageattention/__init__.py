"""SageAttention: data alone."""

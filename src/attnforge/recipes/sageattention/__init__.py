"""SageAttention: only data."""

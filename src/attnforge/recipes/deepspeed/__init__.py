"""DeepSpeed: only data."""

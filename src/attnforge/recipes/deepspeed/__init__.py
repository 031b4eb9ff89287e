"""DeepSpeed: data alone."""

"""grouped-gemm: only data."""

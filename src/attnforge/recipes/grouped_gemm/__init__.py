"""grouped-gemm: data alone."""

"""nvcc's calls taken apart: steps, PTX, parts, paths."""

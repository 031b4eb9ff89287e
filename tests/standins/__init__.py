"""Stand-ins for what a build needs and takes minutes or gigabytes: PyTorch, nvcc, upstream's projects. All our own."""

"""From the objects of a build to the kernels library and the modules of a universal wheel."""

"""The compile graph: read from build.ninja, changed by passes."""

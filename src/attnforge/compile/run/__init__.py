"""Runs what a graph asks for: the engine, compilers, memory, time."""

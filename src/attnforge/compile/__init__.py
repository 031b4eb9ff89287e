"""Compiles what upstream's build asks ninja for.

The packages import one another in this order: ``graph`` and ``seat``, ``nvcc``, ``reuse``, ``run``.
"""

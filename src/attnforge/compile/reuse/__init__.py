"""Avoids compiling again: keys, the object store, caches."""

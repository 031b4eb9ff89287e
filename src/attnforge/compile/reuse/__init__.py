"""What is not compiled again: keys, the object store, caches."""

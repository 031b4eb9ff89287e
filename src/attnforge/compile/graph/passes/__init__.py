"""Pure functions from compile graph to compile graph."""

"""The compile engine: the seat, the graph and its passes, the scheduler."""

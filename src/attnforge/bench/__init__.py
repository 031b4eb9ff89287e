"""Says what is timed and what the times mean. Pure: ``workflow/benchmarking.py`` has the timing done."""

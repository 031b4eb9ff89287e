"""mamba-ssm: only data."""

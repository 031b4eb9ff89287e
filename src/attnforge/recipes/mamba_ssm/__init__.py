"""mamba-ssm: data alone."""

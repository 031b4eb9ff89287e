"""From upstream's wheel to ours: label, provenance, the same bytes every time."""

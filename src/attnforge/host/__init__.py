"""Probes the machine once, and says what it means for a build."""

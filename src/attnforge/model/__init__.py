"""Frozen values. Everything imports these; these import nothing but the errors."""

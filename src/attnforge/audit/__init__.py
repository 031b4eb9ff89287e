"""Reads a wheel and says what is in it and what is wrong with it."""

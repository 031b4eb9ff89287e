"""Answers in place of ninja: the program, and its server in the build."""

"""The command line: one thin adapter for each verb. Nothing else prints or exits."""

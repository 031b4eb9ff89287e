"""What runs beside the wheel, in a Python of its own: needs Python 3.9 or newer and torch, and nothing of attnforge.

``child.py`` is started as a program (workflow/trial.py) and answers requests, a line of JSON each. The other modules
are what it answers with: ``calls`` calls each package in one way, ``reference`` says what is right.
"""

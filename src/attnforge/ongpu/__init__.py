"""The code that runs beside the wheel, in a separate Python: it needs only Python 3.9 or newer and torch.

workflow/child.py starts ``child.py`` as a program. It answers requests, each a line of JSON (``protocol``), with the
other modules: ``about`` the place, ``checks`` for `check`, ``timing`` for `bench`. ``calls`` calls each package in one
way, ``reference`` computes the expected result.
"""

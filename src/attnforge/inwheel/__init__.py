"""What is inside a universal wheel: needs Python 3.9 or newer and torch, and nothing of attnforge.

The source of ``loader.py``, followed by one call, is the ``__init__.py`` of each extension module's package.
"""

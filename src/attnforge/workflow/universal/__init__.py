"""Universal wheels: the kernels library from one build, and a module for each pair of PyTorch and Python.

Upstream's build runs for the first pair as for any wheel, and links what it always does. What comes after is ours, on
the objects that the engine has made: those whose compiles read nothing of PyTorch and Python become the library
(``library``). For each further pair upstream's build runs without these units, so that it compiles host code only
(``modules``). Extending a wheel begins with the library of that wheel (``held``).
"""

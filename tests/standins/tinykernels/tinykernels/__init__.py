import torch  # noqa: F401 - its libraries have to be in the process

from tinykernels._C import run

__all__ = ["run"]

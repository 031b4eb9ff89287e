# Single quotes, as PyTorch's own file has them.
__version__ = '2.11.0+cu130'  # fmt: skip
cuda = '13.0'  # fmt: skip

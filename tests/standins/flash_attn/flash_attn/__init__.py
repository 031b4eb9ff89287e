import torch  # noqa: F401, I001 - its libraries have to be in the process first
import flash_attn_2_cuda

__version__ = "2.8.3"

call = flash_attn_2_cuda.call

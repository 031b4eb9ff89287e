"""Quantizes queries, keys and values on the GPU.

Tensors are (batch, heads, rows, head_dim) in the layout HND, (batch, rows, heads, head_dim) in NHD; head_dim is 64 or
128; fp16 or bf16.
"""

from __future__ import annotations

import torch

from . import _fused

# How many rows share a scale: of queries, of keys.
GROUPS = {"per_warp": (32, 64), "per_thread": (4, 16)}


def layout_number(layout: str) -> int:
    """The number that the kernels have for a layout. Raises ValueError for one that is neither HND nor NHD."""
    if layout not in ("NHD", "HND"):
        raise ValueError(f"Unknown tensor layout: {layout}")
    return int(layout == "HND")


def row_dimension(layout: str) -> int:
    """Which dimension of a tensor is the sequence."""
    return 2 if layout_number(layout) else 1


def rows_int8(
    tensor: torch.Tensor, group: int, layout: str, mean: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """INT8 of the same shape, and a float32 scale for each group of rows: (batch, heads, groups).

    ``mean``, of one row, is subtracted first.
    """
    rows = row_dimension(layout)
    groups = -(-tensor.size(rows) // group)
    output = torch.empty(tensor.shape, dtype=torch.int8, device=tensor.device)
    scale = torch.empty((tensor.size(0), tensor.size(3 - rows), groups), dtype=torch.float32, device=tensor.device)
    if mean is None:
        _fused.quant_per_block_int8_cuda(tensor, output, scale, group, layout_number(layout))
    else:
        flat = mean.squeeze(rows).contiguous()
        _fused.quant_per_block_int8_fuse_sub_mean_cuda(tensor, flat, output, scale, group, layout_number(layout))
    return output, scale


def channels_fp8(
    value: torch.Tensor, layout: str, largest: float, smooth: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """float8_e4m3fn of the same shape, a float32 scale for each channel, (batch, heads, head_dim), and the mean.

    The largest magnitude of a channel becomes ``largest`` (448 at most). ``smooth`` takes out the mean over the rows,
    which is then returned, float32.
    """
    output = torch.empty(value.shape, dtype=torch.float8_e4m3fn, device=value.device)
    shape = (value.size(0), value.size(3 - row_dimension(layout)), value.size(3))
    scale = torch.empty(shape, dtype=torch.float32, device=value.device)
    if not smooth:
        _fused.scale_fuse_quant_cuda(value, output, scale, largest, layout_number(layout))
        return output, scale, None
    mean = torch.empty_like(scale)
    _fused.mean_scale_fuse_quant_cuda(value, output, mean, scale, largest, layout_number(layout))
    return output, scale, mean


def less_mean_fp16(value: torch.Tensor, layout: str) -> tuple[torch.Tensor, torch.Tensor]:
    """``value`` less its mean over the rows, float16, and that mean, float32: (batch, heads, head_dim)."""
    mean = value.mean(dim=row_dimension(layout))
    output = torch.empty(value.shape, dtype=torch.float16, device=value.device)
    _fused.sub_mean_cuda(value, mean.contiguous(), output, layout_number(layout))
    return output, mean.to(torch.float32).contiguous()

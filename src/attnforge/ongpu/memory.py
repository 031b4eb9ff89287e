"""Tensors in memory: copies with the same strides, comparison to the bit, and memory filled with NaN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Bytes of the largest of the blocks that are filled with NaN, besides those of the sizes of results.
_BLOCK = 2**28


def copy(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with the same strides; the gaps between elements are not shared."""
    if tensor.is_contiguous():
        return tensor.clone()
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    place = torch.empty(extent, dtype=tensor.dtype, device=tensor.device)
    return place.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results are the same to the bit, NaN included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


@contextmanager
def filled_when_made() -> Iterator[None]:
    """Have PyTorch fill whatever is allocated without a value with NaN, in Python and in C++ alike."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def poison(like: torch.Tensor) -> None:
    """Fill free blocks of the GPU's caching allocator with NaN (all bits set), of the sizes that results may have."""
    if not like.is_cuda:
        return
    rows = max(1, like.numel() // like.shape[-1]) if like.dim() else 1
    for size in (_BLOCK, like.numel() * like.element_size(), like.numel() * 4, rows * 4):
        blocks = [torch.full((max(1, size),), 255, dtype=torch.uint8, device=like.device) for _ in range(3)]
        del blocks

"""The functions that upstream exports, by its names and with its arguments.

Query is (batch, query heads, query rows, head_dim) in the layout HND, (batch, query rows, query heads, head_dim) in
NHD; key and value alike, with key heads that divide the query heads. fp16 or bf16, head_dim up to 128. Causal: query i
sees keys 0 to i. Returned is the output, of the shape and dtype of the query, and with ``return_lse`` the natural
logarithm of the softmax's denominator, float32: (batch, query heads, query rows).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from .quant import GROUPS, channels_fp8, layout_number, less_mean_fp16, row_dimension, rows_int8

try:
    from . import _qattn_sm80
except ImportError:
    _qattn_sm80 = None
try:
    from . import _qattn_sm89
except ImportError:
    _qattn_sm89 = None
try:
    from . import _qattn_sm90
except ImportError:
    _qattn_sm90 = None

SM80_ENABLED = _qattn_sm80 is not None
SM89_ENABLED = _qattn_sm89 is not None
SM90_ENABLED = _qattn_sm90 is not None

LOG2E = 1.4426950408889634
E4M3_MAX = 448.0
# What upstream brings values to where sums are kept in 16 bits, so that they do not overflow.
MAX_FOR_FP16_SUMS = 2.25


def sageattn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    sm_scale: float | None = None,
    return_lse: bool = False,
    **kwargs: Any,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Attention by the kernel for this GPU. Raises ValueError for a GPU that has none."""
    number = "sm{}{}".format(*torch.cuda.get_device_capability(q.device))
    options = {
        "tensor_layout": tensor_layout,
        "is_causal": is_causal,
        "sm_scale": sm_scale,
        "return_lse": return_lse,
    }
    if number in ("sm80", "sm86"):
        return sageattn_qk_int8_pv_fp16_cuda(q, k, v, **options, pv_accum_dtype="fp32")
    if number == "sm89":
        return sageattn_qk_int8_pv_fp8_cuda(q, k, v, **options, pv_accum_dtype="fp32+fp16")
    if number == "sm90":
        return sageattn_qk_int8_pv_fp8_cuda_sm90(q, k, v, **options, pv_accum_dtype="fp32+fp32")
    if number in ("sm120", "sm121"):
        return sageattn_qk_int8_pv_fp8_cuda(q, k, v, **options, qk_quant_gran="per_warp", pv_accum_dtype="fp32+fp16")
    raise ValueError(f"Unsupported CUDA architecture: {number}")


def sageattn_qk_int8_pv_fp16_cuda(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    qk_quant_gran: str = "per_thread",
    sm_scale: float | None = None,
    pv_accum_dtype: str = "fp32",
    smooth_k: bool = True,
    smooth_v: bool = False,
    return_lse: bool = False,
    **kwargs: Any,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys in INT8, values in fp16."""
    assert SM80_ENABLED, "SM80 kernel is not available. make sure you GPUs with compute capability 8.0 or higher."
    kernels = {
        "fp32": _qattn_sm80.qk_int8_sv_f16_accum_f32_attn,
        "fp16": _qattn_sm80.qk_int8_sv_f16_accum_f16_attn,
        "fp16+fp32": _qattn_sm80.qk_int8_sv_f16_accum_f16_attn_inst_buf,
    }
    kernel = chosen(kernels, pv_accum_dtype)
    call = Call.prepare(q, k, v, tensor_layout, is_causal, qk_quant_gran, sm_scale, smooth_k, return_lse)
    if not takes_smooth_v(smooth_v, pv_accum_dtype, "fp16"):
        return call.run(kernel, call.value.to(torch.float16))
    value, mean = less_mean_fp16(call.value, tensor_layout)
    return call.run(_qattn_sm80.qk_int8_sv_f16_accum_f16_fuse_v_mean_attn, value, mean)


def sageattn_qk_int8_pv_fp8_cuda(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    qk_quant_gran: str = "per_thread",
    sm_scale: float | None = None,
    pv_accum_dtype: str = "fp32+fp16",
    smooth_k: bool = True,
    smooth_v: bool = False,
    return_lse: bool = False,
    **kwargs: Any,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys in INT8, values in e4m3."""
    assert SM89_ENABLED, "SM89 kernel is not available. Make sure you GPUs with compute capability 8.9."
    kernels = {
        "fp32": _qattn_sm89.qk_int8_sv_f8_accum_f32_fuse_v_scale_attn,
        "fp32+fp32": _qattn_sm89.qk_int8_sv_f8_accum_f32_fuse_v_scale_attn_inst_buf,
        "fp32+fp16": _qattn_sm89.qk_int8_sv_f8_accum_f16_fuse_v_scale_attn_inst_buf,
    }
    kernel = chosen(kernels, pv_accum_dtype)
    call = Call.prepare(q, k, v, tensor_layout, is_causal, qk_quant_gran, sm_scale, smooth_k, return_lse)
    largest = MAX_FOR_FP16_SUMS if pv_accum_dtype == "fp32+fp16" else E4M3_MAX
    smooth_v = takes_smooth_v(smooth_v, pv_accum_dtype, "fp32")
    value, scale, mean = channels_fp8(call.value, tensor_layout, largest, smooth_v)
    if mean is None:
        return call.run(kernel, value, scale)
    return call.run(_qattn_sm89.qk_int8_sv_f8_accum_f32_fuse_v_scale_fuse_v_mean_attn, value, scale, mean)


def sageattn_qk_int8_pv_fp8_cuda_sm90(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    qk_quant_gran: str = "per_thread",
    sm_scale: float | None = None,
    pv_accum_dtype: str = "fp32+fp32",
    smooth_k: bool = True,
    return_lse: bool = False,
    **kwargs: Any,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys in INT8, values in e4m3, by the module for Hopper."""
    assert SM90_ENABLED, "SM90 kernel is not available. Make sure you GPUs with compute capability 9.0."
    kernel = chosen({"fp32+fp32": _qattn_sm90.qk_int8_sv_f8_accum_f32_fuse_v_scale_attn_inst_buf}, pv_accum_dtype)
    call = Call.prepare(q, k, v, tensor_layout, is_causal, qk_quant_gran, sm_scale, smooth_k, return_lse)
    value, scale, _ = channels_fp8(call.value, tensor_layout, E4M3_MAX, smooth=False)
    return call.run(kernel, value, scale)


def chosen(kernels: dict[str, Any], sums: str) -> Any:
    """The kernel that sums as asked. Raises ValueError if there is none."""
    if sums not in kernels:
        raise ValueError(f"Unsupported pv_accum_dtype: {sums}")
    return kernels[sums]


def takes_smooth_v(asked: bool, sums: str, only: str) -> bool:
    """Whether the mean is taken out of the values, which the kernels for other sums cannot do: these warn."""
    if asked and sums != only:
        warnings.warn(f"pv_accum_dtype is {sums}, smooth_v will be ignored.", stacklevel=3)
    return asked and sums == only


@dataclass(frozen=True)
class Call:
    """A call on quantized queries and keys; what is left is the values and the kernel."""

    query: torch.Tensor
    query_scale: torch.Tensor
    key: torch.Tensor
    key_scale: torch.Tensor
    value: torch.Tensor  # padded, not quantized
    output: torch.Tensor
    lse_offset: torch.Tensor | float  # what smoothing the keys took from each row's logits
    head_dim: int  # before padding
    layout: str
    causal: bool
    granularity: str
    scale: float
    return_lse: bool

    @classmethod
    def prepare(
        cls,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layout: str,
        causal: bool,
        granularity: str,
        scale: float | None,
        smooth_k: bool,
        return_lse: bool,
    ) -> Call:
        """Check, pad and quantize. Raises AssertionError for unfit tensors, ValueError for a head_dim above 128."""
        assert q.is_cuda, "Input tensors must be on cuda."
        assert q.dtype in (torch.float16, torch.bfloat16), "Input tensors must be in dtype of float16 or bfloat16"
        assert granularity in GROUPS, "qk_quant_gran must be either 'per_warp' or 'per_thread'."
        assert q.device == k.device == v.device, "All tensors must be on the same device."
        assert q.dtype == k.dtype == v.dtype, "All tensors must have the same dtype."
        head_dim = q.size(-1)
        scale = head_dim**-0.5 if scale is None else scale
        q, k, v = padded(q), padded(k), padded(v)
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1, "Last dim of qkv must be contiguous."
        mean = k.mean(dim=row_dimension(layout), keepdim=True) if smooth_k else None
        of_queries, of_keys = GROUPS[granularity]
        query, query_scale = rows_int8(q, of_queries, layout)
        key, key_scale = rows_int8(k, of_keys, layout, mean)
        offset = logits_of_mean(q, mean, layout) * scale if mean is not None and return_lse else 0.0
        output = torch.empty(q.size(), dtype=q.dtype, device=q.device)
        return cls(
            query,
            query_scale,
            key,
            key_scale,
            v,
            output,
            offset,
            head_dim,
            layout,
            causal,
            granularity,
            scale,
            return_lse,
        )

    def run(
        self, kernel: Any, value: torch.Tensor, *of_channels: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Run a kernel on values as it wants them, with what it wants to know of their channels."""
        lse = kernel(
            self.query,
            self.key,
            value,
            self.output,
            self.query_scale,
            self.key_scale,
            *of_channels,
            layout_number(self.layout),
            int(self.causal),
            3 if self.granularity == "per_thread" else 2,
            self.scale,
            int(self.return_lse),
        )
        output = self.output[..., : self.head_dim]
        return (output, lse / LOG2E + self.lse_offset) if self.return_lse else output


def padded(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with zeros up to a head_dim of 64 or 128. Raises ValueError above that."""
    head_dim = tensor.size(-1)
    if head_dim > 128:
        raise ValueError(f"Unsupported head_dim: {head_dim}")
    wanted = 64 if head_dim <= 64 else 128
    return tensor if head_dim == wanted else pad(tensor, (0, wanted - head_dim))


def logits_of_mean(q: torch.Tensor, mean: torch.Tensor, layout: str) -> torch.Tensor:
    """Each query's product with the mean key of its group of heads, float32: (batch, query heads, query rows)."""
    if layout == "NHD":
        q, mean = q.transpose(1, 2), mean.transpose(1, 2)
    mean = mean.repeat_interleave(q.size(1) // mean.size(1), dim=1)
    return (q.float() * mean.float()).sum(dim=-1)

"""Stands in for sageattention: the same functions and parameters, INT8 QK in PyTorch on any device."""

import torch

__version__ = "1.0.6"


def _quantized(x):
    """One scale for each row: what is left after rounding to 8 bits."""
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-8) / 127
    return (x / scale).round() * scale


def _attend(q, k, v, causal, scale):
    """(heads, rows, head_dim) and (kv_heads, columns, head_dim)."""
    groups = q.shape[0] // k.shape[0]
    k = k - k.mean(1, keepdim=True)
    q, k = _quantized(q.float()), _quantized(k.float())
    k, v = k.repeat_interleave(groups, 0), v.float().repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)
    if causal:
        above = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(above, float("-inf"))
    return torch.softmax(scores, -1) @ v


def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, smooth_k=True, **kwargs):
    assert q.dtype in (torch.float16, torch.bfloat16), "fp16 or bf16"
    assert q.shape[-1] in (64, 96, 128), "headdim should be in [64, 96, 128]."
    if tensor_layout == "NHD":
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = torch.stack([_attend(*one, is_causal, sm_scale) for one in zip(q, k, v, strict=True)]).to(q.dtype)
    return out.transpose(1, 2) if tensor_layout == "NHD" else out


def sageattn_varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, is_causal=False, sm_scale=None, smooth_k=True
):
    out = torch.empty_like(q)
    starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for at in range(len(starts_q) - 1):
        rows, keys = slice(starts_q[at], starts_q[at + 1]), slice(starts_k[at], starts_k[at + 1])
        swapped = (x.transpose(0, 1) for x in (q[rows], k[keys], v[keys]))
        out[rows] = _attend(*swapped, is_causal, sm_scale).transpose(0, 1).to(q.dtype)
    return out


def sageattn_qk_int8_pv_fp8_cuda_sm90(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None):
    raise AssertionError("SM90 kernel is not available. Make sure you GPUs with compute capability 9.0.")

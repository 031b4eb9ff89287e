"""Stands in for flash_attn: the same functions and parameters, in PyTorch on any device. Nothing here is upstream's.

standins/attention/wheels.py packs it, whole or with something wrong in it, and sets what was left out.
"""

import torch

__version__ = "2.8.3"

LEFT_OUT = ()
HEAD_DIMS = (32, 64, 96, 128, 192, 256)
DTYPES = ("fp16", "bf16")

_NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def _refuse(what):
    raise RuntimeError(f"this wheel was built without {what}. A wheel with it: attnforge build flash-attn==2.8.3")


HEADS = "Number of heads in key/value must divide number of heads in query"


def _refuse_heads(q, k):
    if q.shape[-2] % k.shape[-2]:
        raise RuntimeError(HEADS)


def _guard(q, **asked):
    dtype = _NAMES[q.dtype]
    size = next(kernel for kernel in (32, 64, 96, 128, 192, 256) if q.shape[-1] <= kernel)
    if size not in HEAD_DIMS or dtype not in DTYPES:
        _refuse(f"kernels for head dimension {size} in {dtype}")
    for feature, is_asked in asked.items():
        if is_asked and feature in LEFT_OUT:
            _refuse(f"{feature} (a feature)")


def _attend(q, k, v, dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes):
    """(rows, heads, head_dim) and (columns, kv_heads, head_dim) in float32."""
    scale = softmax_scale or q.shape[-1] ** -0.5
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    offset = k.shape[0] - q.shape[0]
    row = torch.arange(q.shape[0], device=q.device)[:, None] + offset
    column = torch.arange(k.shape[0], device=q.device)[None, :]
    if alibi_slopes is not None:
        scores = scores - alibi_slopes[:, None, None] * (row - column).abs()
    left, right = window_size
    right = 0 if causal else right
    seen = torch.ones(q.shape[0], k.shape[0], dtype=torch.bool, device=q.device)
    if right >= 0:
        seen = seen & (column <= row + right)
    if left >= 0:
        seen = seen & (column >= row - left)
    weights = torch.softmax(scores.masked_fill(~seen, -1e30), -1) * seen
    if dropout_p:
        weights = weights * (torch.rand_like(weights) >= dropout_p) / (1 - dropout_p)
    return torch.einsum("hqk,khd->qhd", weights, v)


def flash_attn_func(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    _guard(
        q,
        dropout=dropout_p > 0,
        softcap=softcap > 0,
        alibi=alibi_slopes is not None,
        local=tuple(window_size) != (-1, -1),
        backward=q.requires_grad,
    )
    _refuse_heads(q, k)
    options = (dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes)
    result = torch.stack([_attend(*one, *options) for one in zip(q.float(), k.float(), v.float(), strict=True)])
    out = torch.empty_like(q)
    out[:, :] = result.to(q.dtype)
    return out


def flash_attn_qkvpacked_func(qkv, dropout_p=0.0, softmax_scale=None, causal=False):
    return flash_attn_func(*qkv.unbind(2), dropout_p, softmax_scale, causal)


def flash_attn_kvpacked_func(q, kv, dropout_p=0.0, softmax_scale=None, causal=False):
    return flash_attn_func(q, *kv.unbind(2), dropout_p, softmax_scale, causal)


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
    block_table=None,
):
    _guard(
        q,
        softcap=softcap > 0,
        alibi=alibi_slopes is not None,
        local=tuple(window_size) != (-1, -1),
        split=block_table is not None,
    )
    options = (dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes)
    out = torch.empty_like(q)
    starts_q, starts_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for sequence in range(len(starts_q) - 1):
        rows = slice(starts_q[sequence], starts_q[sequence + 1])
        keys = slice(starts_k[sequence], starts_k[sequence + 1])
        pair = (k[keys], v[keys])
        if block_table is not None:
            pair = (x[block_table[sequence].long()].flatten(0, 1)[: keys.stop - keys.start] for x in (k, v))
        out[rows] = _attend(q[rows].float(), *(x.float() for x in pair), *options).to(q.dtype)
    return out


def flash_attn_with_kvcache(
    q,
    k_cache,
    v_cache,
    k=None,
    v=None,
    rotary_cos=None,
    rotary_sin=None,
    cache_seqlens=None,
    cache_batch_idx=None,
    cache_leftpad=None,
    block_table=None,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    rotary_interleaved=True,
    alibi_slopes=None,
    num_splits=0,
    return_softmax_lse=False,
):
    _guard(
        q,
        softcap=softcap > 0,
        alibi=alibi_slopes is not None,
        local=tuple(window_size) != (-1, -1),
        split=k is not None or block_table is not None or cache_batch_idx is not None,
    )
    options = (0.0, softmax_scale, causal, window_size, softcap, alibi_slopes)
    out = torch.empty_like(q)
    for at, length in enumerate(cache_seqlens.tolist()):
        index = at if cache_batch_idx is None else int(cache_batch_idx[at])
        if block_table is not None:
            keys, values = (cache[block_table[at].long()].flatten(0, 1) for cache in (k_cache, v_cache))
        else:
            keys, values = k_cache[index], v_cache[index]
        if k is not None:
            keys[length : length + k.shape[1]] = k[at]
            values[length : length + v.shape[1]] = v[at]
            length += k.shape[1]
        out[at] = _attend(q[at].float(), keys[:length].float(), values[:length].float(), *options).to(q.dtype)
    return out

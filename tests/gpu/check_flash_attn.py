"""Runs a FlashAttention 2 wheel of the diffusion profile on a GPU: what it covers is right, what it left out raises.

A program of its own, for a machine that has torch and a GPU and nothing of attnforge:

    python check_flash_attn.py UNPACKED_WHEEL_FOLDER [HEAD_DIMS [DTYPES]]

It prints a line for each case and a closing line ``N passed, N failed``, and exits with 1 where a case failed. The
tolerance is upstream's own: twice the error of plain PyTorch attention in the same dtype (tests/test_flash_attn.py of
FlashAttention), with the reference in float32.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch
from flash_attn import (  # type: ignore[import-not-found, unused-ignore]
    flash_attn_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
)

HEAD_DIMS = [int(text) for text in (sys.argv[2] if len(sys.argv) > 2 else "64").split(",")]
DTYPES = (sys.argv[3] if len(sys.argv) > 3 else "fp16,bf16").split(",")
TORCH_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
OTHER_DIMS = [dim for dim in (32, 64, 96, 128, 192, 256) if dim not in HEAD_DIMS]
RESULTS: list[bool] = []


def attention(q: Any, k: Any, v: Any, causal: bool, upcast: bool) -> Any:
    """Attention of (batch, seqlen, heads, head_dim) in float32, or in the inputs' dtype; causal aligned at the end."""
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q / math.sqrt(q.shape[-1]), k)
    if causal:
        rows = torch.arange(q.shape[1], device=q.device)[:, None]
        columns = torch.arange(k.shape[1], device=q.device)[None, :]
        scores = scores.masked_fill(columns > rows + k.shape[1] - q.shape[1], float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).nan_to_num(0.0).to(q.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def report(name: str, ok: bool, detail: str) -> None:
    """Print a case's result and count it."""
    RESULTS.append(ok)
    print(("ok   " if ok else "FAIL ") + f"{name}: {detail}", flush=True)


def compare(name: str, out: Any, q: Any, k: Any, v: Any, causal: bool) -> None:
    """Hold a result against the reference by upstream's rule."""
    expected = attention(q, k, v, causal, upcast=True)
    plain = (attention(q, k, v, causal, upcast=False).float() - expected).abs().max().item()
    error = (out.float() - expected).abs().max().item()
    report(name, error <= 2 * plain + 1e-5, f"largest error {error:.5f}, plain PyTorch {plain:.5f}")


def draw(shape: tuple[int, ...], dtype: str) -> Any:
    """Random values; memory that the next allocations may reuse was filled with NaN before."""
    torch.full((64, 1024, 1024), float("nan"), device="cuda")
    return torch.randn(shape, device="cuda", dtype=TORCH_DTYPES[dtype])


def dense(dtype: str, dim: int) -> None:
    """Dense calls, also those that upstream's heuristic sends to split-KV kernels."""
    shapes = [
        (2, 128, 128, 4, 4),
        (1, 777, 777, 8, 8),
        (1, 1, 4096, 8, 8),
        (1, 1, 1000, 16, 2),
        (2, 113, 203, 6, 3),
        (4, 1024, 1024, 16, 16),
        (1, 3, 20000, 2, 1),
        (3, 256, 64, 4, 4),
        (1, 64, 129, 1, 1),
    ]
    for batch, rows, columns, heads, kv_heads in shapes:
        for causal in (False, True):
            for size in (dim, dim - 8):
                q = draw((batch, rows, heads, size), dtype)
                k, v = draw((batch, columns, kv_heads, size), dtype), draw((batch, columns, kv_heads, size), dtype)
                name = f"dense {dtype} d={size} b={batch} {rows}x{columns} h={heads}/{kv_heads} causal={causal}"
                compare(name, flash_attn_func(q, k, v, causal=causal), q, k, v, causal)


def varlen(dtype: str, dim: int) -> None:
    """Sequences of different lengths, an empty one among them, and one token each (upstream swaps groups there)."""
    for lengths_q, lengths_k, kv_heads in (
        ([17, 0, 300, 1], [17, 5, 300, 64], 4),
        ([1, 1, 1], [2000, 31, 700], 1),
        ([64], [64], 2),
    ):
        for causal in (False, True):
            q, k, v = (
                draw((sum(n), h, dim), dtype) for n, h in ((lengths_q, 4), (lengths_k, kv_heads), (lengths_k, kv_heads))
            )
            starts_q, starts_k = (
                torch.tensor([0, *torch.tensor(n).cumsum(0).tolist()], device="cuda", dtype=torch.int32)
                for n in (lengths_q, lengths_k)
            )
            out = flash_attn_varlen_func(q, k, v, starts_q, starts_k, max(lengths_q), max(lengths_k), causal=causal)
            at_q = at_k = 0
            for rows, columns in zip(lengths_q, lengths_k, strict=True):
                if rows:
                    parts = [
                        q[None, at_q : at_q + rows],
                        k[None, at_k : at_k + columns],
                        v[None, at_k : at_k + columns],
                    ]
                    compare(
                        f"varlen {dtype} d={dim} {rows}x{columns} causal={causal}",
                        out[None, at_q : at_q + rows],
                        *parts,
                        causal,
                    )
                at_q, at_k = at_q + rows, at_k + columns


def cache(dtype: str, dim: int) -> None:
    """A KV cache that is only read, with lengths, and with a wished number of splits."""
    q, k, v = draw((2, 1, 8, dim), dtype), draw((2, 512, 2, dim), dtype), draw((2, 512, 2, dim), dtype)
    lengths = torch.tensor([300, 512], device="cuda", dtype=torch.int32)
    for splits in (0, 1, 5):
        out = flash_attn_with_kvcache(q, k, v, cache_seqlens=lengths, num_splits=splits)
        for at, length in enumerate((300, 512)):
            one = slice(at, at + 1)
            compare(
                f"kvcache {dtype} d={dim} length={length} splits={splits}",
                out[one],
                q[one],
                k[one, :length],
                v[one, :length],
                False,
            )


def raises(name: str, word: str, call: Callable[[], Any]) -> None:
    """A call for what was left out raises an error that names it and the command that builds it."""
    try:
        call()
        torch.cuda.synchronize()
    except RuntimeError as error:
        text = str(error)
        report(name, word in text and "attnforge build" in text, text.splitlines()[0][:160])
    else:
        report(name, False, "no error was raised")


def left_out(dtype: str, dim: int) -> None:
    """Each feature and head dimension that the profile drops."""
    q, k, v = (draw((2, 130, 4, dim), dtype) for _ in range(3))
    slopes = torch.rand(4, device="cuda", dtype=torch.float32)
    starts = torch.tensor([0, 130, 260], device="cuda", dtype=torch.int32)
    flat = [x.reshape(-1, 4, dim) for x in (q, k, v)]
    lengths = (starts, starts, 130, 130)
    asked: dict[str, dict[str, Any]] = {
        "softcap": {"softcap": 30.0},
        "alibi": {"alibi_slopes": slopes},
        "dropout": {"dropout_p": 0.1},
        "local": {"window_size": (16, 16)},
    }
    for name, options in asked.items():
        raises(f"{name} {dtype}", name, lambda options=options: flash_attn_func(q, k, v, **options))  # type: ignore[misc]
        raises(
            f"{name} varlen {dtype}", name, lambda options=options: flash_attn_varlen_func(*flat, *lengths, **options)
        )  # type: ignore[misc]
    raises(f"local causal {dtype}", "local", lambda: flash_attn_func(q, k, v, causal=True, window_size=(16, 0)))
    one = q[:, :1]
    raises(f"softcap kvcache {dtype}", "softcap", lambda: flash_attn_with_kvcache(one, k, v, softcap=10.0))
    raises(
        f"append {dtype}", "split", lambda: flash_attn_with_kvcache(one, k, v, k[:, :1], v[:, :1], cache_seqlens=100)
    )
    pages = draw((4, 256, 4, dim), dtype)
    used = torch.tensor([100, 100], device="cuda", dtype=torch.int32)
    table = torch.tensor([[0, 1], [2, 3]], device="cuda", dtype=torch.int32)
    raises(
        f"paged {dtype}",
        "split",
        lambda: flash_attn_with_kvcache(one, pages, pages, cache_seqlens=used, block_table=table),
    )
    raises(
        f"paged varlen {dtype}",
        "split",
        lambda: flash_attn_varlen_func(flat[0], pages, pages, *lengths, block_table=table),
    )
    index = torch.tensor([1, 0], device="cuda", dtype=torch.int32)
    raises(
        f"indexed {dtype}",
        "split",
        lambda: flash_attn_with_kvcache(one, k, v, cache_seqlens=100, cache_batch_idx=index),
    )
    grads = [x.clone().requires_grad_() for x in (q, k, v)]
    raises(f"backward {dtype}", "backward", lambda: flash_attn_func(*grads).sum().backward())
    for other in OTHER_DIMS:
        wide = draw((1, 64, 2, other), dtype)
        raises(f"head dimension {other} {dtype}", str(other), lambda wide=wide: flash_attn_func(wide, wide, wide))  # type: ignore[misc]


def main() -> int:
    """Run all cases."""
    print(torch.cuda.get_device_name(), torch.__version__)
    q = torch.randn(2, 4, 128, HEAD_DIMS[-1], device="cuda", dtype=TORCH_DTYPES[DTYPES[0]])
    print("output =", flash_attn_func(q, q, q).shape)
    for dtype in DTYPES:
        for dim in HEAD_DIMS:
            dense(dtype, dim)
            varlen(dtype, dim)
            cache(dtype, dim)
            left_out(dtype, dim)
    for dtype in TORCH_DTYPES.keys() - set(DTYPES):
        other = draw((1, 64, 2, HEAD_DIMS[0]), dtype)
        raises(f"dtype {dtype}", dtype, lambda other=other: flash_attn_func(other, other, other))  # type: ignore[misc]
    print(f"{sum(RESULTS)} passed, {len(RESULTS) - sum(RESULTS)} failed")
    return 0 if all(RESULTS) else 1


sys.exit(main())

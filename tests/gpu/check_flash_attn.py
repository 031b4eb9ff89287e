"""Runs a FlashAttention 2 wheel of attnforge's on a GPU: what it covers is right, what it left out raises.

A program of its own, for a machine that has torch and a GPU and nothing of attnforge:

    python -m zipfile -e WHEEL FOLDER && python check_flash_attn.py FOLDER

What the wheel covers is read from the coverage inside it. A line for each case, a closing line ``N passed, N failed``,
exit 1 where a case failed. The tolerance is upstream's own: twice the error of plain PyTorch attention in the same
dtype (tests/test_flash_attn.py of FlashAttention), with the reference in float32.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

import torch
from flash_attn import (
    flash_attn_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
)

(COVERAGE_FILE,) = Path(sys.argv[1]).glob("*.dist-info/attnforge/coverage.json")
COVERAGE = json.loads(COVERAGE_FILE.read_text())
LEFT_OUT = set(COVERAGE["left_out"])
TORCH_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
UPSTREAM_DIMS = sorted({int(name.split("-")[1][4:]) for name in COVERAGE["kernels"] + COVERAGE["kernels_left_out"]})
RESULTS: list[bool] = []


def attention(q: Any, k: Any, v: Any, options: dict[str, Any], upcast: bool) -> Any:
    """Attention of (batch, seqlen, heads, head_dim) in float32, or in the inputs' dtype; aligned at the end."""
    if upcast:
        q, k, v = q.float(), k.float(), v.float()
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q / math.sqrt(q.shape[-1]), k)
    if options.get("softcap"):
        scores = options["softcap"] * torch.tanh(scores / options["softcap"])
    rows = torch.arange(q.shape[1], device=q.device)[:, None] + k.shape[1] - q.shape[1]
    columns = torch.arange(k.shape[1], device=q.device)[None, :]
    if options.get("alibi_slopes") is not None:
        # Upstream: minus slope times the distance from the diagonal (attn_bias_from_alibi_slopes of its tests).
        scores = scores - options["alibi_slopes"][None, :, None, None] * (rows - columns).abs()
    left, right = options.get("window_size", (-1, -1))
    right = 0 if options.get("causal") else right
    hidden = torch.zeros_like(rows - columns, dtype=torch.bool)
    hidden = hidden | (columns > rows + right) if right >= 0 else hidden
    hidden = hidden | (columns < rows - left) if left >= 0 else hidden
    scores = scores.masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).nan_to_num(0.0).to(q.dtype)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def report(name: str, ok: bool, detail: str) -> None:
    """Print a case's result and count it."""
    RESULTS.append(ok)
    print(("ok   " if ok else "FAIL ") + f"{name}: {detail}", flush=True)


def compare(name: str, out: Any, q: Any, k: Any, v: Any, **options: Any) -> None:
    """Hold a result against the reference by upstream's rule. NaN never passes."""
    expected = attention(q, k, v, options, upcast=True)
    plain = (attention(q, k, v, options, upcast=False).float() - expected).abs().max().item()
    error = (out.float() - expected).abs().max().item()
    report(name, error <= 2 * plain + 1e-5, f"largest error {error:.5f}, plain PyTorch {plain:.5f}")


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


def draw(shape: tuple[int, ...], dtype: str) -> Any:
    """Random values; memory that the next allocations may reuse was filled with NaN before."""
    torch.full((64, 1024, 1024), float("nan"), device="cuda")
    return torch.randn(shape, device="cuda", dtype=TORCH_DTYPES[dtype])


def integers(*values: Any) -> Any:
    """Lengths and offsets as the calls take them."""
    return torch.tensor(*values, device="cuda", dtype=torch.int32)


SHAPES = [
    # batch, rows, columns, heads, key and value heads; few heads and batches go to split-KV kernels upstream.
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


def features(dtype: str, heads: int) -> dict[str, dict[str, Any]]:
    """The options that ask for each feature of the forward pass that has a reference here."""
    return {
        "softcap": {"softcap": 3.0},
        "alibi": {"alibi_slopes": torch.rand(heads, device="cuda", dtype=torch.float32)},
        "local": {"window_size": (16, 8)},
    }


def dense(dtype: str, dim: int) -> None:
    """Dense calls of every shape, causal and not, at the head dimension and below it, and with each feature."""
    for batch, rows, columns, heads, kv_heads in SHAPES:
        for causal in (False, True):
            for size in (dim, dim - 8):
                q = draw((batch, rows, heads, size), dtype)
                k, v = draw((batch, columns, kv_heads, size), dtype), draw((batch, columns, kv_heads, size), dtype)
                name = f"dense {dtype} d={size} b={batch} {rows}x{columns} h={heads}/{kv_heads} causal={causal}"
                compare(name, flash_attn_func(q, k, v, causal=causal), q, k, v, causal=causal)
                for feature, options in features(dtype, heads).items():
                    if feature in LEFT_OUT:
                        continue
                    out = flash_attn_func(q, k, v, causal=causal, **options)
                    compare(f"{feature} {name}", out, q, k, v, causal=causal, **options)


def varlen(dtype: str, dim: int) -> None:
    """Sequences of different lengths, an empty one among them, and one token each (upstream swaps groups there)."""
    for lengths_q, lengths_k, kv_heads in (
        ([17, 0, 300, 1], [17, 5, 300, 64], 4),
        ([1, 1, 1], [2000, 31, 700], 1),
        ([64], [64], 2),
    ):
        for causal in (False, True):
            q = draw((sum(lengths_q), 4, dim), dtype)
            k, v = (draw((sum(lengths_k), kv_heads, dim), dtype) for _ in range(2))
            starts_q, starts_k = (
                integers([0, *torch.tensor(lengths).cumsum(0).tolist()]) for lengths in (lengths_q, lengths_k)
            )
            out = flash_attn_varlen_func(q, k, v, starts_q, starts_k, max(lengths_q), max(lengths_k), causal=causal)
            at_q = at_k = 0
            for rows, columns in zip(lengths_q, lengths_k, strict=True):
                if rows:
                    part = slice(at_q, at_q + rows)
                    keys = slice(at_k, at_k + columns)
                    name = f"varlen {dtype} d={dim} {rows}x{columns} causal={causal}"
                    compare(name, out[None, part], q[None, part], k[None, keys], v[None, keys], causal=causal)
                at_q, at_k = at_q + rows, at_k + columns


def cache(dtype: str, dim: int) -> None:
    """A KV cache that is read, with lengths and a wished number of splits; appended to, paged and indexed."""
    q, k, v = draw((2, 1, 8, dim), dtype), draw((2, 512, 2, dim), dtype), draw((2, 512, 2, dim), dtype)
    used = (300, 511)
    for splits in (0, 1, 5):
        out = flash_attn_with_kvcache(q, k, v, cache_seqlens=integers(used), num_splits=splits)
        for at, length in enumerate(used):
            one = slice(at, at + 1)
            name = f"kvcache {dtype} d={dim} length={length} splits={splits}"
            compare(name, out[one], q[one], k[one, :length], v[one, :length])
    new = draw((2, 1, 2, dim), dtype)
    index = integers([1, 0])
    pages, table = draw((4, 256, 2, dim), dtype), integers([[0, 3], [2, 1]])
    if "split" in LEFT_OUT:
        raises(f"append {dtype}", "split", lambda: flash_attn_with_kvcache(q, k, v, new, new, cache_seqlens=100))
        lengths = {"cache_seqlens": integers(used)}
        raises(
            f"paged {dtype}", "split", lambda: flash_attn_with_kvcache(q, pages, pages, block_table=table, **lengths)
        )
        raises(f"indexed {dtype}", "split", lambda: flash_attn_with_kvcache(q, k, v, cache_batch_idx=index, **lengths))
        return
    out = flash_attn_with_kvcache(q, pages, pages, cache_seqlens=integers(used), block_table=table)
    for at, length in enumerate(used):
        one = slice(at, at + 1)
        flat = pages[table[at].long()].reshape(1, 512, 2, dim)[:, :length]
        compare(f"paged {dtype} d={dim} length={length}", out[one], q[one], flat, flat)
    out = flash_attn_with_kvcache(q, k, v, cache_seqlens=integers(used), cache_batch_idx=index)
    for at, length in enumerate(used):
        other = slice(1 - at, 2 - at)
        name = f"indexed {dtype} d={dim} length={length}"
        compare(name, out[at : at + 1], q[at : at + 1], k[other, :length], v[other, :length])
    out = flash_attn_with_kvcache(q, k, v, new, new, cache_seqlens=integers(used))
    for at, length in enumerate(used):
        one = slice(at, at + 1)
        report(f"appended {dtype} d={dim} length={length}", torch.equal(k[at, length], new[at, 0]), "the cache has it")
        compare(f"append {dtype} d={dim} length={length}", out[one], q[one], k[one, : length + 1], v[one, : length + 1])


def left_out(dtype: str, dim: int) -> None:
    """Each feature and head dimension that the wheel does not have."""
    q, k, v = (draw((2, 130, 4, dim), dtype) for _ in range(3))
    starts = integers([0, 130, 260])
    flat = [x.reshape(-1, 4, dim) for x in (q, k, v)]
    lengths = (starts, starts, 130, 130)
    asked = {**features(dtype, 4), "dropout": {"dropout_p": 0.1}}
    for name, options in asked.items():
        if name not in LEFT_OUT:
            continue
        raises(f"{name} {dtype}", name, lambda options=options: flash_attn_func(q, k, v, **options))  # type: ignore[misc]
        raises(
            f"{name} varlen {dtype}",
            name,
            lambda options=options: flash_attn_varlen_func(*flat, *lengths, **options),  # type: ignore[misc]
        )
    if "local" in LEFT_OUT:
        raises(f"local causal {dtype}", "local", lambda: flash_attn_func(q, k, v, causal=True, window_size=(16, 0)))
    if "softcap" in LEFT_OUT:
        raises(f"softcap kvcache {dtype}", "softcap", lambda: flash_attn_with_kvcache(q[:, :1], k, v, softcap=10.0))
    if "split" in LEFT_OUT:
        pages, table = draw((4, 256, 4, dim), dtype), integers([[0, 1], [2, 3]])
        raises(
            f"paged varlen {dtype}",
            "split",
            lambda: flash_attn_varlen_func(flat[0], pages, pages, *lengths, block_table=table),
        )
    grads = [x.clone().requires_grad_() for x in (q, k, v)]
    if "backward" in LEFT_OUT:
        raises(f"backward {dtype}", "backward", lambda: flash_attn_func(*grads).sum().backward())
    for other in UPSTREAM_DIMS:
        if other not in COVERAGE["head_dims"]:
            wide = draw((1, 64, 2, other), dtype)
            name = f"head dimension {other} {dtype}"
            raises(name, str(other), lambda wide=wide: flash_attn_func(wide, wide, wide))  # type: ignore[misc]


def main() -> int:
    """Run all cases."""
    print(torch.cuda.get_device_name(), torch.__version__, COVERAGE["version"], COVERAGE["profile"], sorted(LEFT_OUT))
    first = TORCH_DTYPES[COVERAGE["dtypes"][0]]
    q = torch.randn(2, 4, 128, COVERAGE["head_dims"][-1], device="cuda", dtype=first)
    print("output =", flash_attn_func(q, q, q).shape)
    for dtype in COVERAGE["dtypes"]:
        for dim in COVERAGE["head_dims"]:
            dense(dtype, dim)
            varlen(dtype, dim)
            cache(dtype, dim)
            left_out(dtype, dim)
    for dtype in TORCH_DTYPES.keys() - set(COVERAGE["dtypes"]):
        other = draw((1, 64, 2, COVERAGE["head_dims"][0]), dtype)
        raises(f"dtype {dtype}", dtype, lambda other=other: flash_attn_func(other, other, other))  # type: ignore[misc]
    print(f"{sum(RESULTS)} passed, {len(RESULTS) - sum(RESULTS)} failed")
    return 0 if all(RESULTS) else 1


sys.exit(main())

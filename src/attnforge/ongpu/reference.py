"""The reference: attention in float32 or float64, in slices that fit in memory, and how far a result may be from it.

Rules are upstream's own. FlashAttention 2, tests/test_flash_attn.py: no further from attention in float32 than twice
what plain PyTorch attention in the same dtype is (three times for gradients). FlashAttention 3,
hopper/test_flash_attn.py: twice that (three times with softcap), and twice what rounding to the dtype makes of adding
0.3 and taking it away. SageAttention computes with quantized operands: cosine similarity above 0.99 and a mean
relative error below 0.05, as integrators test it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .protocol import Measure

# Upstream's tests add this to their bounds, for results that plain PyTorch hits exactly.
_ABSOLUTE = 1e-5

# Bytes of scores that are in memory at once.
_SLICE_BYTES = 2**30


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi: torch.Tensor | None = None,
    dtype: torch.dtype | None = torch.float32,
    weights_dtype: torch.dtype | None = None,
    slice_bytes: int = _SLICE_BYTES,
) -> torch.Tensor:
    """Return attention of q (batch, rows, heads, head_dim) and k, v (batch, columns, kv_heads, head_dim).

    Computed and returned in ``dtype``; None keeps the inputs' own, which is what plain PyTorch gives.
    ``weights_dtype`` is what weights are rounded to before they meet v, as FlashAttention 3's tests do for fp8. Masks
    are aligned at the end of rows and columns. A row that sees no column is 0. Sliced by batch and rows, so that
    scores and what is made of them take about ``slice_bytes``; gradients go through.
    """
    if dtype is not None:
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    scoring = _Scoring(scale or q.shape[-1] ** -0.5, causal, window, softcap, weights_dtype)
    step = max(1, slice_bytes // (4 * q.element_size() * q.shape[2] * max(1, k.shape[1])))
    done = []
    for b in range(q.shape[0]):
        slopes = None if alibi is None else (alibi if alibi.dim() == 1 else alibi[b])
        done.append(_sequence(q[b], k[b], v[b], slopes, scoring, step))
    return torch.stack(done)


@dataclass(frozen=True)
class _Scoring:
    """How scores are made and masked."""

    scale: float
    causal: bool
    window: tuple[int, int]
    softcap: float
    weights_dtype: torch.dtype | None


def _sequence(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slopes: torch.Tensor | None, scoring: _Scoring, step: int
) -> torch.Tensor:
    """Return one sequence, (rows, heads, head_dim), computed ``step`` rows at a time."""
    rows = q.shape[0]
    keys, values = (x.transpose(0, 1).repeat_interleave(q.shape[1] // x.shape[1], 0) for x in (k, v))
    parts = [
        _rows(q[at : at + step].transpose(0, 1), keys, values, at, rows, slopes, scoring) for at in range(0, rows, step)
    ]
    return torch.cat(parts, 1).transpose(0, 1) if parts else q


def _rows(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    at: int,
    rows: int,
    slopes: torch.Tensor | None,
    scoring: _Scoring,
) -> torch.Tensor:
    """Return some rows of all heads, (heads, rows, head_dim), from row ``at`` of ``rows`` on."""
    scores = (q * scoring.scale) @ k.transpose(1, 2)
    if scoring.softcap:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    # How far a column is behind the row's own column, which is aligned at the end.
    row = torch.arange(at, at + q.shape[1], device=q.device)[:, None] + k.shape[1] - rows
    behind = row - torch.arange(k.shape[1], device=q.device)[None, :]
    if slopes is not None:
        scores = scores - slopes[:, None, None] * behind.abs()  # in float32 at least, as upstream's bias is
    hidden = _hidden(behind, scoring.causal, *scoring.window)
    if hidden is None:
        weights = torch.softmax(scores, -1)
    else:
        # A row that sees nothing has to be 0, where softmax would give NaN, in gradients too.
        blind = hidden.all(-1, keepdim=True)
        weights = torch.softmax(scores.masked_fill(hidden & ~blind, float("-inf")), -1).masked_fill(blind, 0.0)
    if scoring.weights_dtype is not None:
        weights = weights.to(scoring.weights_dtype)
    return weights.to(v.dtype) @ v


def _hidden(behind: torch.Tensor, causal: bool, left: int, right: int) -> torch.Tensor | None:
    """Return what a row does not see, or None where it sees all."""
    right = 0 if causal else right
    hidden = None
    if right >= 0:
        hidden = behind < -right
    if left >= 0:
        hidden = behind > left if hidden is None else hidden | (behind > left)
    return hidden


def exact() -> None:
    """Have float32 matrix products computed in float32: TF32 would be a reference with 10 bits."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def figures(out: torch.Tensor, expected: torch.Tensor) -> Measure:
    """Return how far a result is from what is expected, where both are finite.

    ``largest_error``: of any element; ``cosine``: similarity of the whole; ``mean_relative``: the sum of errors over
    the sum of what is expected, both absolute; ``not_finite``: how many elements are NaN or infinite where the
    expected is not.
    """
    out, expected = out.detach().double(), expected.detach().double()
    good = torch.isfinite(out)
    found, wanted = torch.where(good, out, 0.0), torch.where(good, expected, 0.0)
    size = wanted.abs().sum().item()
    norms = (found.norm() * wanted.norm()).item()
    error = (found - wanted).abs()
    return {
        "largest_error": error.max().item() if error.numel() else 0.0,
        "cosine": (found * wanted).sum().item() / norms if norms else 1.0,
        "mean_relative": error.sum().item() / size if size else 0.0,
        "not_finite": int((~good & torch.isfinite(expected)).sum().item()),
    }


def judge(
    rule: str,
    out: torch.Tensor,
    expected: torch.Tensor,
    plain: torch.Tensor | None = None,
    *,
    gradient: bool = False,
    softcap: bool = False,
) -> Measure:
    """Return ``figures``, with ``ok`` and the bound that it is by.

    ``rule`` is ``flash2``, ``flash3`` or ``quantized``; the first two need ``plain``, plain PyTorch attention in the
    inputs' dtype, and give its largest error as ``plain_error`` and the ``bound``. NaN where a number is expected is
    never ok.
    """
    if out.shape != expected.shape:
        return {
            "largest_error": 0.0,
            "cosine": 0.0,
            "mean_relative": 1.0,
            "not_finite": 0,
            "ok": False,
            "shape": list(out.shape),
            "expected_shape": list(expected.shape),
        }
    seen = figures(out, expected)
    if rule == "quantized":
        seen["ok"] = seen["cosine"] > 0.99 and seen["mean_relative"] < 0.05 and not seen["not_finite"]
        return seen
    assert plain is not None
    seen["plain_error"] = figures(plain, expected)["largest_error"]
    rounding = _absolute(rule, expected, plain.dtype, softcap and gradient)
    seen["bound"] = _factor(rule, gradient, softcap) * seen["plain_error"] + rounding
    seen["ok"] = seen["largest_error"] <= seen["bound"] and not seen["not_finite"]
    return seen


def _factor(rule: str, gradient: bool, softcap: bool) -> float:
    if rule == "flash3":
        return 3.0 if softcap else 2.0
    return 3.0 if gradient else 2.0


def _absolute(rule: str, expected: torch.Tensor, dtype: torch.dtype, softcapped_gradient: bool) -> float:
    if rule != "flash3" or not expected.numel():
        return _ABSOLUTE
    rounded = expected.detach().to(dtype)
    more = 3e-4 if softcapped_gradient else 0.0
    return 2 * float((rounded + 0.3 - 0.3 - rounded).abs().max()) + more + _ABSOLUTE

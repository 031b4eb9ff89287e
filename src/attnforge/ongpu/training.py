"""Cases of what training needs: gradients and dropout."""

from __future__ import annotations

from typing import Callable

import torch

from . import reference
from .memory import filled_when_made, same
from .trying import Trying


def gradients(one: Trying) -> None:
    """Compare the gradients of q, k and v."""
    tensors, options, own = one.inputs(), one.options(), one.own_options()
    direction = one.draw(*tensors[0].shape)
    call = one.call()
    found = _backward(lambda *each: call(*each, **options, **own), tensors, direction)
    if one.case["deterministic"]:
        again = _backward(lambda *each: call(*each, **options, **own), tensors, direction)
        one.found["repeats"] = all(map(same, found, again))
    exact = tuple(tensor.float() for tensor in tensors)
    expected = _backward(lambda *each: reference.attention(*each, **options), exact, direction)
    plain = _backward(lambda *each: reference.attention(*each, dtype=None, **options), tensors, direction)
    for each, wanted, simple in zip(found, expected, plain):
        one.measure(each, wanted, simple, gradient=True)


def call_only(one: Trying) -> None:
    """Make the call, and its backward pass."""
    tensors = tuple(tensor.requires_grad_() for tensor in one.inputs())
    one.call()(*tensors, **one.options()).sum().backward()


def _backward(
    call: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...], direction: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    with filled_when_made():
        out = call(*leaves)
        found: tuple[torch.Tensor, ...] = torch.autograd.grad(out, leaves, direction.to(out.dtype))
        return found


def dropout(one: Trying) -> None:
    """Measure what dropout keeps. With equal scores and values of 1, a result is the kept weights over the expected.

    Its mean is 1 and its variance p / ((1 - p) columns). FlashAttention 2 compares 8 bits, which is exact for a
    quarter.
    """
    q, _, v = one.inputs()
    k, options = torch.zeros_like(v), {**one.options(), **one.own_options()}

    def kept() -> torch.Tensor:
        return one.call()(q, k, torch.ones_like(v), **options).float()[..., 0]

    torch.manual_seed(1)
    out = kept()
    torch.manual_seed(1)
    again, other = kept(), kept()
    rate = one.case["dropout"]
    expected = rate / ((1 - rate) * one.case["columns"])
    mean, variance = out.mean().item(), out.var().item()
    one.found["figures"] = {"mean": mean, "variance": variance, "expected_variance": expected}
    # Six deviations of the mean of all rows, and what rounding to 16 bits may add.
    if not abs(mean - 1) <= 6 * (expected / out.numel()) ** 0.5 + 0.004:
        one.found["wrong"] = f"with dropout {rate} results average to {mean:.4f} of those without"
    elif not 0.7 * expected <= variance <= 1.3 * expected:
        one.found["wrong"] = f"dropout {rate} has a variance of {variance:.6f} and should have {expected:.6f}"
    elif same(out, other):
        one.found["wrong"] = "dropout drops the same weights in each call"
    one.found["repeats"] = same(out, again)

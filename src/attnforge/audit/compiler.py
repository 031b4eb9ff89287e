"""Which nvcc made a wheel of ours, where that is another minor than the CUDA that its PyTorch is built with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attnforge.model.finding import Finding, Severity


def check_compiler(plan: Any) -> Iterator[Finding]:
    """State the compiler by the plan in the wheel, as JSON has it. Nothing where there is no plan, or no such field."""
    try:
        nvcc, cuda, own = plan["toolchain"]["nvcc"], plan["toolchain"]["cuda"], plan["target"]["cuda"]
    except (KeyError, TypeError):
        return
    if cuda and own and cuda != own:
        yield Finding(
            code="compiler",
            severity=Severity.INFO,
            subject="compiler",
            seen=f"nvcc {nvcc}",
            means=f"its PyTorch is built with CUDA {own}: any minor of one major goes together",
        )

"""What an audit of a wheel says."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from attnforge.errors import UncheckedError, WheelError
from attnforge.model.base import Value
from attnforge.model.finding import Finding, Severity

Verdict = Literal["good", "bad", "unchecked"]


class KernelCount(Value):
    """How many different kernels a module has for a head dimension and dtype (``fp16``, ``bf16``)."""

    head_dim: int
    dtype: str
    count: int


class ModuleReport(Value):
    """One shared object of a wheel.

    ``architectures`` are those of its machine code (``sm_90``, ``sm_90a``), ``ptx`` those of its PTX (``compute_90``),
    each exact. ``size`` is in bytes, unpacked. ``device_functions`` counts different names over all architectures,
    and ``kernels`` those of them that the recipe knows by head dimension and dtype. ``pair`` is the PyTorch and Python
    that a module of a universal wheel is for (``torch2.11-py3.12``), else "".
    """

    path: str
    architectures: tuple[str, ...] = ()
    ptx: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    size: int
    kernels: tuple[KernelCount, ...] = ()
    device_functions: int = 0
    pair: str = ""


class Expected(Value):
    """What a plan says that the wheel has: exact ``architectures``, ``modules`` by import name, ``python`` (cp312, or
    py3 of a universal wheel).

    ``code`` is the machine code of single modules, by import name, where they have any. ``alike`` says that each module
    that is not named there has all ``architectures`` or no machine code. ``outside`` says that upstream may compile
    without the ninja that it finds. An empty field expects nothing.
    """

    architectures: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    code: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    alike: bool = False
    outside: bool = False
    python: str = ""


class AuditReport(Value):
    """The contents of a wheel, and what is wrong with it.

    ``undefined`` are the symbols that no library provides, readable where they could be demangled. ``glibc`` and
    ``glibcxx`` are the versions that a machine needs (``2.28``, ``3.4.22``; empty where nothing asks for one), and
    ``platform_tag`` is the tag that follows from these and from the libraries that are needed.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    wheel: str
    modules: tuple[ModuleReport, ...]
    undefined: tuple[str, ...] = ()
    glibc: str = ""
    glibcxx: str = ""
    platform_tag: str
    coverage: dict[str, Any] | None = None
    findings: tuple[Finding, ...]
    verdict: Verdict

    @property
    def exit_code(self) -> int:
        """0 for good, 5 for bad, 6 for what could not be checked."""
        return {"good": 0, "bad": WheelError.exit_code, "unchecked": UncheckedError.exit_code}[self.verdict]


def verdict_of(findings: tuple[Finding, ...]) -> Verdict:
    """Return the worst that the findings say: an error is bad, and what could not be checked is never good."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return "bad"
    return "unchecked" if Severity.UNCHECKED in severities else "good"

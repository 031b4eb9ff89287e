"""Wheels of FlashAttention and other CUDA extensions, built from upstream's own sources and proven.

The Python interface is what the command line uses::

    import os
    from pathlib import Path
    from attnforge import Machine, Request, audit_wheel, build, check_wheel, plan

    machine = Machine(os.environ)
    planned = plan(machine, Request(package="flash-attn", gpus=("H100",), profile="diffusion"))
    built = build(machine, planned, Path("dist"))
    print(built.wheel, built.audit.verdict)
    print(audit_wheel(machine, built.wheel).platform_tag)
    print(check_wheel(machine, built.wheel).verdict)

Names are loaded when they are first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnforge.audit.compare import compare_wheels
    from attnforge.errors import AttnforgeError
    from attnforge.model.benchmark import BenchReport
    from attnforge.model.request import Request
    from attnforge.workflow.auditing import audit as audit_wheel
    from attnforge.workflow.benchmarking import BenchOptions, bench_wheels
    from attnforge.workflow.building import build
    from attnforge.workflow.checking import check as check_wheel
    from attnforge.workflow.extending import Extension, extend, plan_extension
    from attnforge.workflow.machine import Machine
    from attnforge.workflow.planning import Planned, plan
    from attnforge.workflow.results import Built

# Public name: its module, and its name there. `audit` and `check` are packages, so these verbs end in _wheel.
_HOMES = {
    "AttnforgeError": ("attnforge.errors", "AttnforgeError"),
    "BenchOptions": ("attnforge.workflow.benchmarking", "BenchOptions"),
    "BenchReport": ("attnforge.model.benchmark", "BenchReport"),
    "Built": ("attnforge.workflow.results", "Built"),
    "Extension": ("attnforge.workflow.extending", "Extension"),
    "Machine": ("attnforge.workflow.machine", "Machine"),
    "Planned": ("attnforge.workflow.planning", "Planned"),
    "Request": ("attnforge.model.request", "Request"),
    "audit_wheel": ("attnforge.workflow.auditing", "audit"),
    "bench_wheels": ("attnforge.workflow.benchmarking", "bench_wheels"),
    "build": ("attnforge.workflow.building", "build"),
    "check_wheel": ("attnforge.workflow.checking", "check"),
    "compare_wheels": ("attnforge.audit.compare", "compare_wheels"),
    "extend": ("attnforge.workflow.extending", "extend"),
    "plan": ("attnforge.workflow.planning", "plan"),
    "plan_extension": ("attnforge.workflow.extending", "plan_extension"),
}

__all__ = [
    "AttnforgeError",
    "BenchOptions",
    "BenchReport",
    "Built",
    "Extension",
    "Machine",
    "Planned",
    "Request",
    "audit_wheel",
    "bench_wheels",
    "build",
    "check_wheel",
    "compare_wheels",
    "extend",
    "plan",
    "plan_extension",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        module, own_name = _HOMES[name]
        return getattr(import_module(module), own_name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

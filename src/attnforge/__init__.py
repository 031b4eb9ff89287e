"""Builds wheels of FlashAttention and other CUDA extensions from upstream's own sources, and checks them.

The functions are the verbs of the command line::

    import os
    from attnforge import Machine, Request, audit_wheel, build, check_wheel, plan

    machine = Machine(os.environ)
    planned = plan(machine, Request(package="flash-attn", gpus=("H100",), profile="diffusion"))
    built = build(machine, planned, "dist")
    print(built.wheel, built.audit.verdict)
    print(audit_wheel(machine, built.wheel).platform_tag)
    print(check_wheel(machine, built.wheel).verdict)

Names are loaded on first use, so that ``import attnforge`` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnforge.api import (
        audit_wheel,
        bench_wheels,
        build,
        check_wheel,
        compare_wheels,
        extend,
        plan,
        plan_extension,
    )
    from attnforge.errors import (
        AttnforgeError,
        BuildError,
        HostError,
        RequestError,
        UncheckedError,
        WheelError,
    )
    from attnforge.model.benchmark import BenchReport
    from attnforge.model.request import Request
    from attnforge.workflow.benchmarking import BenchOptions
    from attnforge.workflow.extension import Extension
    from attnforge.workflow.machine import Machine
    from attnforge.workflow.planning import Planned
    from attnforge.workflow.results import Built

    __version__: str

__all__ = [
    "AttnforgeError",
    "BenchOptions",
    "BenchReport",
    "BuildError",
    "Built",
    "Extension",
    "HostError",
    "Machine",
    "Planned",
    "Request",
    "RequestError",
    "UncheckedError",
    "WheelError",
    "__version__",
    "audit_wheel",
    "bench_wheels",
    "build",
    "check_wheel",
    "compare_wheels",
    "extend",
    "plan",
    "plan_extension",
]

# Where a name is, for those that are not a function in attnforge.api.
_HOMES = {
    "AttnforgeError": "attnforge.errors",
    "BenchOptions": "attnforge.workflow.benchmarking",
    "BenchReport": "attnforge.model.benchmark",
    "BuildError": "attnforge.errors",
    "Built": "attnforge.workflow.results",
    "Extension": "attnforge.workflow.extension",
    "HostError": "attnforge.errors",
    "Machine": "attnforge.workflow.machine",
    "Planned": "attnforge.workflow.planning",
    "Request": "attnforge.model.request",
    "RequestError": "attnforge.errors",
    "UncheckedError": "attnforge.errors",
    "WheelError": "attnforge.errors",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        return import_module("attnforge.version").VERSION
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "attnforge.api")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

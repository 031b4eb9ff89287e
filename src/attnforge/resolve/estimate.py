"""The estimate of a build on a machine: seconds, memory, compilers at once."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from attnforge.model.cost import Prediction
from attnforge.model.host import Host
from attnforge.model.plan import Estimate
from attnforge.model.request import Request
from attnforge.resolve.decisions import Notes
from attnforge.resolve.predictions import Made
from attnforge.schedule.simulate import simulate
from attnforge.schedule.unit import unit_of

_GIB = 2**30

# What a build takes besides compiling, on two cores: source 4.5 s, upstream's setup.py 4, the rest for planning,
# hashing headers, linking, packing and auditing (docs/performance.md, "again").
FIXED_SECONDS = 18.0

# What is left where the wheel is there, on two cores: laying out the source 2 s, the audit 1 s, and planning.
AUDIT_SECONDS = 4.0

# Kept free for upstream's own build, the page cache and whatever else runs: a tenth, between 1 and 8 GiB.
_RESERVE_SHARE, _RESERVE_MIN, _RESERVE_MAX = 0.1, 1 * _GIB, 8 * _GIB


def memory_budget(request: Request, host: Host) -> int:
    """Return the bytes that compilers may use together: what is asked for, else what is free less a reserve.

    Where more is asked for than there is, all that there is less the reserve (``warn_of_memory`` says so).
    """
    return _asked(request, host) or max(host.memory.available_bytes - _reserve(host), _GIB)


def memory_limit(request: Request, host: Host) -> int:
    """Return the bytes that compilers could ever use here, whatever else runs now: the same for machines alike."""
    return _asked(request, host) or _most(host)


def warn_of_memory(request: Request, host: Host, notes: Notes) -> None:
    """Warn where more memory is asked for than this machine, or its control group, has."""
    asked, memory = request.memory or 0, host.memory
    if asked > memory.limit_bytes:
        notes.warn(
            "memory",
            f"--memory {_gib(asked)} is more than there is ({_gib(memory.limit_bytes)}, {memory.limited_by}): compilers"
            f" get {_gib(_most(host))}",
            "give --memory a smaller size, or none; or raise the limit of the machine or container",
        )


def kept_free(host: Host) -> int:
    """Return the bytes that have to stay free while compilers run: half of the reserve may be used by others."""
    return _reserve(host) // 2


def _asked(request: Request, host: Host) -> int:
    """Return the bytes of ``--memory``, as far as they exist; 0 without it."""
    asked = request.memory or 0
    return asked if asked <= host.memory.limit_bytes else _most(host)


def _most(host: Host) -> int:
    return max(host.memory.limit_bytes - _reserve(host), _GIB)


def _gib(size: int) -> str:
    """Return a size as ``--memory`` takes it: 3G is 3 GiB."""
    return f"{size / _GIB:.1f}".removesuffix(".0") + "G"


def _reserve(host: Host) -> int:
    return min(max(int(host.memory.limit_bytes * _RESERVE_SHARE), _RESERVE_MIN), _RESERVE_MAX)


def wall_seconds(seconds: Iterable[float], slots: int) -> float:
    """Return how long jobs take, longest first onto so many slots."""
    ends = [0.0] * slots
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def estimate(
    units_: Iterable[Mapping[str, Prediction]], request: Request, host: Host, made: Made | None = None
) -> Estimate:
    """Return what a build of these units takes here: the scheduler is run on a simulated clock.

    ``seconds`` are those from the command to the wheel, downloads not counted; ``peak_bytes`` is the most that will be
    reserved at once, ``slots`` how many compilers will run at once. ``made`` is what is there already; ``units_`` are
    what is left. 0 seconds where nothing is known of a package.
    """
    there = made or Made()
    if there.wheel:
        return Estimate(seconds=round(AUDIT_SECONDS, 1), peak_bytes=0, slots=1)
    trials = [unit_of(str(number), steps) for number, steps in enumerate(units_)]
    found = simulate(trials, request.jobs or host.cpus, memory_budget(request, host))
    return Estimate(
        seconds=round(found.seconds + (FIXED_SECONDS if trials or there.sources else 0.0), 1),
        peak_bytes=found.reserved_bytes,
        slots=found.at_once,
    )

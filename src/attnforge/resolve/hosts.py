"""The processors of the hosts that GPUs are in: a wheel has code for one processor."""

from __future__ import annotations

from collections.abc import Sequence

from attnforge.errors import HostError, RequestError
from attnforge.knowledge.gpus import all_gpus, on_arm_alone
from attnforge.model.host import Host
from attnforge.model.target import Gpu

_PROCESSOR = "x86_64"


def check_hosts(gpus: Sequence[Gpu]) -> None:
    """Raise RequestError for a GPU that exists only beside an ARM processor (GH200, GB200, DGX Spark, Jetson)."""
    for gpu in gpus:
        if on_arm_alone(gpu):
            raise RequestError(
                f"{gpu.name} is a GPU of hosts with an ARM processor (aarch64)",
                why="attnforge builds wheels only for Linux on x86_64, which such a host can't load",
                hint=_alike(gpu),
                link="https://github.com/Dao-AILab/flash-attention/issues/1969",
            )


def check_processor(host: Host) -> None:
    """Raise HostError where this machine compiles for another processor than the wheel would be for."""
    if host.machine.lower() not in (_PROCESSOR, "amd64"):
        raise HostError(
            f"this machine has a processor of the kind {host.machine}",
            why="attnforge builds wheels for Linux on x86_64, and only there",
            hint="use a Linux x86_64 machine, virtual machine or container",
        )


def _alike(gpu: Gpu) -> str:
    alike = [known.name for known in all_gpus() if known.capability == gpu.capability and not on_arm_alone(known)]
    if not alike:
        return "name a GPU of an x86-64 host"
    return f"the same kernels for an x86-64 host: --gpu {alike[0]}"

"""The release of NVIDIA's CUDA toolkit that a request names."""

from __future__ import annotations

from attnforge.knowledge.redist import CudaRelease, pinned_release
from attnforge.model.request import Request
from attnforge.provision.redist import fetch_release
from attnforge.resolve.toolchain import asked_release_version
from attnforge.workflow.machine import Machine


def asked_release(machine: Machine, request: Request) -> CudaRelease | None:
    """Return the release of ``--toolchain nvidia==12.8.1``, None where none is named.

    For a release that is not pinned, NVIDIA's manifest is fetched and kept. HostError where that fails.
    """
    version = asked_release_version(request.toolchain)
    if not version:
        return None
    platform = machine.host.machine
    pinned = pinned_release(version, platform)
    return pinned or fetch_release(version, platform, request.cuda_mirror, machine.folders, machine.settings)

"""What a build downloads before it compiles. It is known when the build is planned, without the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attnforge.knowledge.downloads import archive_bytes, toolchain_bytes, torch_bytes
from attnforge.model.plan import BuildPlan, Fetch, SourcePin
from attnforge.paths import Folders
from attnforge.process import redact
from attnforge.provision.environment import kept_torch
from attnforge.provision.gittree import has_checkout
from attnforge.provision.redist import has_release
from attnforge.provision.source import has_sdist
from attnforge.provision.toolchain import has_packages
from attnforge.workflow.machine import torch_backend

_INDEX, _TORCH_INDEX = "the package index", "https://download.pytorch.org/whl"


def fetches_of(plan: BuildPlan, folders: Folders, mirror: str = "") -> tuple[Fetch, ...]:
    """Return what a build of this plan fetches that is not in the cache. ``mirror`` replaces NVIDIA's server.

    uv's own cache is not inspected, so a build may fetch less.
    """
    if not plan.is_compiled:
        return tuple(_source(plan.source, folders))
    return (*_source(plan.source, folders), *_torch(plan, folders), *_toolchain(plan, folders, mirror))


def _source(pin: SourcePin, folders: Folders) -> Iterator[Fetch]:
    if pin.kind == "sdist" and not has_sdist(folders, pin.sha256):
        yield Fetch(what=pin.name, where=_INDEX, size=archive_bytes(pin.sha256))
    # A repository of this machine has no URL in a plan.
    if pin.kind == "git" and pin.url and not has_checkout(folders, pin.commit, pin.submodules):
        modules = f" with {', '.join(pin.submodules)}" if pin.submodules else ""
        yield Fetch(what=f"commit {pin.commit[:12]} of {pin.name}{modules}", where=pin.url)


def _torch(plan: BuildPlan, folders: Folders) -> Iterator[Fetch]:
    if plan.installed is not None:
        return
    cuda = plan.target.cuda
    for torch, pythons in _pythons(plan):
        backend = torch_backend(torch, cuda)
        build = f"{torch}+{backend}" if backend else torch
        missing = [python for python in pythons if not kept_torch(folders, python, build)]
        if missing:
            for_several = f" for Python {', '.join(missing)}" if plan.is_universal else ""
            yield Fetch(
                what=f"PyTorch {torch} with CUDA {cuda}{for_several}, and what it requires",
                where=f"{_TORCH_INDEX}/{backend}" if backend else _INDEX,
                size=torch_bytes(torch, cuda, len(missing)),
                about=True,
            )


def _pythons(plan: BuildPlan) -> Iterable[tuple[str, list[str]]]:
    """Return the PyTorch versions of a plan, each with its Pythons."""
    found: dict[str, list[str]] = {} if plan.pairs else {plan.target.torch: [plan.target.python]}
    for pair in plan.pairs:
        found.setdefault(pair.torch, []).append(pair.python)
    return found.items()


def _toolchain(plan: BuildPlan, folders: Folders, mirror: str) -> Iterator[Fetch]:
    pin = plan.toolchain
    if pin.origin == "nvidia" and not has_release(folders, pin):
        components = ", ".join(archive.component for archive in pin.archives)
        where = redact(mirror) if mirror else "NVIDIA"
        yield Fetch(what=f"CUDA {pin.release} ({components})", where=where, size=pin.download_bytes)
    if pin.origin == "pypi" and not has_packages(folders, pin.cuda):
        size = toolchain_bytes(pin.cuda)
        yield Fetch(what=f"nvcc {pin.nvcc} and what it needs", where=_INDEX, size=size, about=True)

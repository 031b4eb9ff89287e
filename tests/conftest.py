"""What tests share: hosts and plans made by hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import settings

from attnforge.model.host import Disk, Host, HostCompiler, Memory, Toolkit
from attnforge.model.plan import BuildPlan, Resolution, SourcePin
from attnforge.model.request import Request
from attnforge.recipes.catalogue import find_recipe
from attnforge.resolve.resolver import resolve

GIB = 2**30
SOURCE = SourcePin(kind="sdist", name="flash_attn-2.8.3.tar.gz", sha256="a" * 64)
CUDA_13 = Toolkit(home="/usr/local/cuda", cuda="13.0", nvcc="13.0.88")
GXX = HostCompiler(path="/usr/bin/g++", name="g++", version="12.2.0")


# How long an example takes says how busy the machine is, and nothing of what is tested.
# All the examples: ./forge test tests/unit --hypothesis-profile=thorough
settings.register_profile("quick", deadline=None, max_examples=30)
settings.register_profile("thorough", deadline=None, max_examples=300)
settings.load_profile("quick")


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests start: a shell starts background jobs, as CI may be one, without it.

    Take away the variables that name an environment: a PyTorch in one would be the target of plans.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        os.environ.pop(variable, None)


def _host(**changes: Any) -> Host:
    values: dict[str, Any] = {
        "system": "Linux",
        "machine": "x86_64",
        "libc": "glibc 2.36",
        "cpus": 4,
        "cpus_total": 4,
        "cpus_limited_by": "",
        "memory": Memory(total_bytes=64 * GIB, limit_bytes=64 * GIB, available_bytes=60 * GIB, limited_by=""),
        "toolkits": (),
        "compilers": (GXX,),
        "interpreters": (),
        "gpus": (),
        "driver": "",
        "driver_cuda": "",
        "disks": (Disk(purpose="build", path="/b", free_bytes=100 * GIB, device=1, writable=True),),
        "pip": "25.0",
        "uv": "0.9",
        "git": "2.39",
        "torch": "",
        "python": "3.12.1",
    }
    return Host(**{**values, **changes})


@pytest.fixture
def make_host() -> Callable[..., Host]:
    """Make a host: four processors, 64 GiB, g++ 12, no nvcc, no GPU, unless changed."""
    return _host


def _resolve(request: Request, version: str, host: Host) -> Resolution:
    return resolve(request, find_recipe(request.package), version, SOURCE, host)


_resolved = lru_cache(maxsize=512)(_resolve)


@pytest.fixture
def make_resolution(request: pytest.FixtureRequest) -> Callable[..., Resolution]:
    """Resolve FlashAttention 2.8.3 for an H100 on such a host, with changes to the request.

    Resolutions are frozen, so tests share them. A test that patches something may patch what plans come from: it gets
    its own.
    """
    resolved = _resolve if "monkeypatch" in request.fixturenames else _resolved

    def make(*, host: Host | None = None, version: str = "2.8.3", **changes: Any) -> Resolution:
        asked = Request(**{"package": "flash-attn", "gpus": ("H100",), **changes})
        return resolved(asked, version, host or _host())

    return make


@pytest.fixture
def make_plan(make_resolution: Callable[..., Resolution]) -> Callable[..., BuildPlan]:
    """The plan of such a resolution."""
    return lambda **changes: make_resolution(**changes).plan

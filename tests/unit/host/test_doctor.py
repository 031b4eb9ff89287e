from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.host.checks_machine import HEAVY_UNIT_BYTES, SLIM_UNIT_BYTES, fitting
from attnforge.host.doctor import examine, verdict
from attnforge.model.finding import Finding, Severity
from attnforge.model.host import Active, Disk, Host, HostCompiler, Installed, Interpreter, Memory, Toolkit
from attnforge.model.target import Architecture, Gpu

GB = 10**9


def gxx(version: str, path: str = "/usr/bin/g++") -> HostCompiler:
    return HostCompiler(path=path, name="g++", version=version)


NO_SHARED_CXX = HostCompiler(path="/usr/bin/g++", name="g++", version="13.3.0", has_shared_cxx=False)


def kit(nvcc: str, **changes: Any) -> Toolkit:
    return Toolkit(home="/c", cuda=nvcc.rpartition(".")[0], nvcc=nvcc, **changes)


def disk(purpose: str, free: int = 500 * GB, device: int = 1, writable: bool = True) -> Disk:
    return Disk(purpose=purpose, path=f"/x/{purpose}", free_bytes=free, device=device, writable=writable)


def memory(limit: int = 64 * GB, available: int = 60 * GB, by: str = "machine") -> Memory:
    return Memory(total_bytes=max(limit, 64 * GB), limit_bytes=limit, available_bytes=available, limited_by=by)


def machine(**changes: Any) -> Host:
    """A machine that has everything, with changes."""
    whole = Host(
        system="Linux",
        machine="x86_64",
        libc="glibc 2.36",
        cpus=8,
        cpus_total=8,
        cpus_limited_by="machine",
        memory=memory(),
        toolkits=(Toolkit(home="/usr/local/cuda-13.0", cuda="13.0", nvcc="13.0.88"),),
        compilers=(gxx("12.2.0"),),
        interpreters=(Interpreter(path="/usr/bin/python3.12", version="3.12.1", has_headers=True),),
        gpus=(Gpu(name="NVIDIA H100 80GB HBM3", capability=Architecture(major=9, minor=0)),),
        driver="580.1",
        driver_cuda="13.0",
        disks=(disk("build"), disk("cache"), disk("temporary")),
        pip="24.0",
        uv="0.9.5",
        git="2.39.5",
        torch="2.11.0",
    )
    return whole.model_copy(update=changes)


def find(host: Host, code: str, cuda: str = "") -> Finding:
    (found,) = (finding for finding in examine(host, cuda) if finding.code == code)
    return found


def test_a_machine_that_has_everything() -> None:
    findings = examine(machine(), "13.0")
    assert {finding.severity for finding in findings} == {Severity.OK, Severity.INFO}
    assert verdict(findings) == 0


def test_a_bare_cuda_13_build_machine_needs_no_toolkit_gpu_driver_pip_or_torch() -> None:
    bare = machine(toolkits=(), gpus=(), driver="", driver_cuda="", pip="", torch="")
    for cuda in ("", "13.0", "13.2"):
        assert verdict(examine(bare, cuda)) == 0
        assert find(bare, "nvcc", cuda).severity is Severity.INFO
        assert "package index" in find(bare, "nvcc", cuda).means
    assert find(bare, "gpus").severity is Severity.INFO
    assert find(bare, "driver").severity is Severity.INFO


@pytest.mark.parametrize(
    ("changes", "cuda", "code", "severity"),
    [
        ({"system": "Darwin", "machine": "arm64"}, "", "system", Severity.ERROR),
        ({"machine": "aarch64"}, "", "system", Severity.ERROR),
        ({"libc": "musl"}, "", "libc", Severity.ERROR),
        ({"libc": ""}, "", "libc", Severity.UNCHECKED),
        ({"cpus": 2, "cpus_limited_by": "cgroup /a (cpu.max)"}, "", "cores", Severity.INFO),
        ({"memory": memory(3 * GB, 3 * GB)}, "", "memory", Severity.ERROR),
        ({"memory": memory(64 * GB, 3 * GB)}, "", "memory", Severity.WARNING),
        ({"memory": memory(64 * GB, 5 * GB)}, "", "memory", Severity.WARNING),
        ({"memory": memory(64 * GB, 7 * GB)}, "", "memory", Severity.OK),
        ({"disks": (disk("build", GB // 2),)}, "", "disk-build", Severity.ERROR),
        ({"disks": (disk("build", 3 * GB),)}, "", "disk-build", Severity.WARNING),
        ({"disks": (disk("cache", writable=False),)}, "", "disk-cache", Severity.ERROR),
        ({"disks": (disk("temporary", GB // 4),)}, "", "disk-temporary", Severity.ERROR),
        ({"disks": (disk("temporary", GB),)}, "", "disk-temporary", Severity.WARNING),
        ({"toolkits": ()}, "11.8", "nvcc", Severity.ERROR),
        ({}, "11.8", "nvcc", Severity.ERROR),
        ({"toolkits": ()}, "12.8", "nvcc", Severity.INFO),
        ({}, "12.8", "nvcc", Severity.INFO),
        ({"toolkits": (kit("12.4.131"),)}, "12.8", "nvcc", Severity.INFO),
        ({"toolkits": (kit("12.4.131", named_by="CUDA_HOME"),)}, "12.8", "nvcc", Severity.WARNING),
        ({"toolkits": (kit("12.8.93", lacks=("nv/target (cuda_cccl)",)),)}, "12.8", "nvcc", Severity.INFO),
        ({"toolkits": (kit("12.8.93", lacks=("ptxas",)),)}, "12.8", "nvcc-incomplete", Severity.WARNING),
        ({"toolkits": (kit("12.8.93", lacks=("ptxas",), named_by="x"),)}, "", "nvcc-incomplete", Severity.ERROR),
        ({"toolkits": (kit("12.8.93", max_glibc="2.35"),)}, "12.8", "nvcc-glibc", Severity.WARNING),
        ({"toolkits": (kit("12.8.93", max_glibc="2.35", named_by="x"),)}, "", "nvcc-glibc", Severity.ERROR),
        ({"toolkits": (Toolkit(home="/c", cuda="12.4", nvcc="12.4.131"),)}, "13.0", "nvcc", Severity.INFO),
        ({"toolkits": (Toolkit(home="/c", cuda="12.8", nvcc="12.8.93"),)}, "12.8", "nvcc", Severity.OK),
        ({"compilers": ()}, "", "host-compiler", Severity.ERROR),
        ({"compilers": (gxx("16.1.0"),)}, "13.0", "host-compiler", Severity.ERROR),
        ({"compilers": (gxx("8.5.0"),)}, "13.0", "host-compiler", Severity.ERROR),
        ({"compilers": (gxx("12.2.0"),)}, "14.0", "host-compiler", Severity.UNCHECKED),
        ({"compilers": (gxx("14.1.0"),)}, "12.8", "host-compiler", Severity.WARNING),
        ({"compilers": (gxx("16.1.0"), gxx("13.1.0", "/usr/bin/g++-13"))}, "13.0", "host-compiler", Severity.WARNING),
        ({"compilers": (gxx("14.1.0"), gxx("13.1.0", "/usr/bin/g++-13"))}, "12.8", "host-compiler", Severity.WARNING),
        ({"compilers": (NO_SHARED_CXX,)}, "", "host-cxx-library", Severity.WARNING),
        ({"interpreters": ()}, "", "python", Severity.WARNING),
        ({"uv": ""}, "", "uv", Severity.ERROR),
        ({"pip": ""}, "", "pip", Severity.INFO),
        ({"git": ""}, "", "git", Severity.INFO),
        ({"torch": ""}, "", "torch", Severity.INFO),
        ({"driver_cuda": "12.4"}, "13.0", "driver", Severity.WARNING),
        ({"driver_cuda": "12.4"}, "12.8", "driver", Severity.OK),
        ({"driver_cuda": ""}, "13.0", "driver", Severity.OK),
    ],
)
def test_severities(changes: dict[str, Any], cuda: str, code: str, severity: Severity) -> None:
    host = machine(**changes)
    assert find(host, code, cuda).severity is severity
    if severity is Severity.ERROR:
        assert verdict(examine(host, cuda)) == 3


@pytest.mark.parametrize(
    ("changes", "cuda", "code", "hint"),
    [
        ({"compilers": (gxx("16.1.0"),)}, "12.4", "host-compiler", "CXX=g++-13"),
        ({"compilers": (gxx("16.1.0"),)}, "12.8", "host-compiler", "CXX=g++-13"),
        ({"compilers": (gxx("14.1.0"),)}, "12.8", "host-compiler", "g++-13"),
        (
            {"compilers": (gxx("14.1.0"), gxx("13.1.0", "/usr/lib/g++-13"))},
            "12.8",
            "host-compiler",
            "set CXX=/usr/lib/g++-13",
        ),
        ({"compilers": ()}, "", "host-compiler", "apt-get install g++"),
        ({"disks": (disk("cache", GB // 2),)}, "", "disk-cache", "ATTNFORGE_CACHE"),
        ({"disks": (disk("temporary", GB // 4),)}, "", "disk-temporary", "TMPDIR"),
        ({"toolkits": ()}, "12.1", "nvcc", "--cuda 13.0"),
        ({"toolkits": ()}, "12.1", "nvcc", "--toolchain nvidia==12.1.1"),
        ({"toolkits": (kit("12.8.93", lacks=("ptxas",)),)}, "", "nvcc-incomplete", "unset CUDA_HOME"),
        ({"toolkits": (kit("12.8.93", max_glibc="2.35"),)}, "", "nvcc-glibc", "an older glibc"),
        ({"gpus": ()}, "", "gpus", "--gpu"),
        ({"driver_cuda": "12.4"}, "13.0", "driver", "--cuda 12.4"),
        ({"uv": ""}, "", "uv", "pip install uv"),
    ],
)
def test_hints(changes: dict[str, Any], cuda: str, code: str, hint: str) -> None:
    assert hint in find(machine(**changes), code, cuda).hint


def test_every_toolkit_is_listed_and_its_host_compiler_is_looked_at() -> None:
    kits = (
        Toolkit(home="/usr/local/cuda-13.0", cuda="13.0", nvcc="13.0.88"),
        Toolkit(home="/usr/local/cuda-12.4", cuda="12.4", nvcc="12.4.131"),
    )
    host = machine(toolkits=kits, compilers=(gxx("14.1.0"),))
    seen = find(host, "nvcc").seen
    assert "13.0.88" in seen
    assert "nvcc 12.8.93, will be fetched from NVIDIA: 81 MB" in find(machine(), "nvcc", "12.8").means
    assert "/usr/local/cuda-12.4" in seen
    compilers = [finding for finding in examine(host) if finding.code == "host-compiler"]
    assert [finding.severity for finding in compilers] == [Severity.OK, Severity.ERROR]


def test_what_limits_memory_and_cores_is_said() -> None:
    host = machine(memory=memory(10 * GB, 9 * GB, "cgroup /a (memory.max)"), cpus=2, cpus_limited_by="affinity")
    assert "cgroup /a (memory.max)" in find(host, "memory").seen
    assert "2 of 8, limited by affinity" in find(host, "cores").seen
    assert "2 slim" in find(host, "memory").means
    assert "1 heavy" in find(host, "memory").means


@pytest.mark.parametrize(
    ("devices", "severity"),
    [
        ((1, 1, 1), Severity.OK),
        ((1, 1, 2), Severity.INFO),
        ((1, 2, 1), Severity.WARNING),
        ((1, 2, 3), Severity.WARNING),
    ],
)
def test_file_systems(devices: tuple[int, int, int], severity: Severity) -> None:
    purposes = ("build", "cache", "temporary")
    disks = tuple(disk(purpose, device=device) for purpose, device in zip(purposes, devices, strict=True))
    assert find(machine(disks=disks), "disk-shared").severity is severity


def test_interpreters_without_headers_are_told_apart() -> None:
    ready = Interpreter(path="/a", version="3.11.2", has_headers=True)
    bare = Interpreter(path="/b", version="3.12.1", has_headers=False)
    assert find(machine(interpreters=(ready, bare)), "python").seen == "3.11.2; without headers: 3.12.1"
    assert find(machine(interpreters=(bare,)), "python").severity is Severity.WARNING


@given(
    st.integers(0, 300 * GB),
    st.integers(1, 256),
    st.sampled_from([SLIM_UNIT_BYTES, HEAVY_UNIT_BYTES]),
)
def test_what_fits_is_within_memory_and_cores(available: int, cpus: int, unit: int) -> None:
    count = fitting(available, cpus, unit)
    assert 0 <= count <= cpus
    assert count * unit <= available
    assert count == cpus or (count + 1) * unit > available


@given(
    cuda=st.sampled_from(["", "11.8", "12.4", "12.8", "13.0", "13.5", "14.0", "99", "x"]),
    gcc=st.lists(st.integers(1, 20).map(lambda major: gxx(f"{major}.1.0", f"/g++-{major}")), max_size=3).map(tuple),
    available=st.integers(0, 100 * GB),
    free=st.integers(0, 20 * GB),
)
def test_whatever_is_not_good_says_what_it_means_and_what_mends_it(
    cuda: str, gcc: tuple[HostCompiler, ...], available: int, free: int
) -> None:
    disks = tuple(disk(purpose, free) for purpose in ("build", "cache", "temporary"))
    host = machine(compilers=gcc, memory=memory(available=available), disks=disks)
    findings = examine(host, cuda)
    for finding in findings:
        assert finding.subject
        assert finding.seen
        if finding.severity in (Severity.WARNING, Severity.ERROR, Severity.UNCHECKED):
            assert finding.means
            assert finding.hint
    severities = {finding.severity for finding in findings}
    assert verdict(findings) == (3 if Severity.ERROR in severities else 6 if Severity.UNCHECKED in severities else 0)
    assert verdict(()) == 0


INSTALLED = Installed(
    python="/opt/venv/bin/python",
    version="3.12.1",
    prefix="/opt/venv",
    named_by="VIRTUAL_ENV",
    torch="2.11.0",
    calls_itself="2.11.0+cu130",
    cuda="13.0",
)


def torch_of(active: Active, **host: Any) -> Finding:
    (found,) = (finding for finding in examine(machine(**host), "", active) if finding.code == "torch")
    return found


def test_the_pytorch_of_the_active_environment_is_what_builds_are_for() -> None:
    found = torch_of(Active(installed=INSTALLED))
    assert (found.severity, found.seen) == (Severity.OK, "2.11.0+cu130 of /opt/venv (VIRTUAL_ENV), Python 3.12")


def test_a_broken_pytorch_in_the_active_environment_is_a_warning_with_the_command_that_shows_it() -> None:
    broken = INSTALLED.model_copy(update={"trouble": "ImportError: libcudnn.so.9"})
    found = torch_of(Active(unfit=broken, passed=((broken.place, broken.shortcoming),)))
    assert found.severity is Severity.WARNING
    assert "libcudnn.so.9" in found.seen and "/opt/venv/bin/python -c 'import torch'" in found.hint


def test_no_pytorch_is_needed_and_where_none_was_found_is_told() -> None:
    found = torch_of(Active(passed=(("/usr (python3 on PATH)", "it has no PyTorch"),)), torch="")
    assert found.severity is Severity.INFO
    assert "/usr (python3 on PATH): it has no PyTorch" in found.seen

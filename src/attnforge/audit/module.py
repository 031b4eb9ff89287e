"""Looks at one shared object of a wheel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnforge.audit.device import DeviceCode, count_kernels, read_device_code
from attnforge.elf import Elf
from attnforge.model.audit import ModuleReport
from attnforge.model.finding import Finding, Severity
from attnforge.model.kernels import Kernels

_DRIVER_LIBRARIES = ("libcuda.so", "libnvidia-ml.so")
_CXX_RUNTIME, _THROWS = "libstdc++.so.6", "__cxa_throw"
_CUDA_LIBRARIES = ("libcudart.so", "libcuda.so", "libc10_cuda.so", "libtorch_cuda.so")


@dataclass(frozen=True, slots=True)
class Module:
    """A shared object: its path in the wheel, host image, device code, and what is reported of it."""

    path: str
    elf: Elf
    code: DeviceCode
    report: ModuleReport

    @property
    def uses_cuda(self) -> bool:
        """Whether it holds device code or needs a library of CUDA's."""
        return self.code.present or any(library.startswith(_CUDA_LIBRARIES) for library in self.elf.needed)


def read_module(path: str, elf: Elf, kernels: Kernels | None, pair: str = "") -> Module:
    """Read all that an audit says of a module, of that ``pair``; WheelError where its tables are damaged."""
    code = read_device_code(elf)
    report = ModuleReport(
        path=path,
        architectures=tuple(architecture.sm for architecture in code.architectures),
        ptx=tuple(f"compute_{architecture.digits}" for architecture in code.ptx),
        needed=elf.needed,
        rpath=elf.rpath,
        size=len(elf.data),
        kernels=count_kernels(code.kernels, kernels),
        device_functions=len(code.functions),
        pair=pair,
    )
    return Module(path, elf, code, report)


def check_driver(path: str, elf: Elf) -> Iterator[Finding]:
    """Say that a wheel holds a library of the driver's: it comes with the driver, and a copy hides the real one."""
    names = {path.rpartition("/")[2], elf.soname}
    if any(name.startswith(_DRIVER_LIBRARIES) for name in names):
        yield Finding(
            code="driver-inside",
            severity=Severity.ERROR,
            subject=path,
            seen="a library of NVIDIA's driver, or a stub of one",
            means="the machine's own driver is not used, and calls into this copy fail",
            hint="build it again without packing libcuda.so (auditwheel: --exclude libcuda.so.1)",
            link="https://github.com/thu-ml/SageAttention/issues/245",
        )


def check_cxx_runtime(path: str, elf: Elf) -> Iterator[Finding]:
    """Say that a module exports its own C++ library, beside the one that PyTorch and Python have loaded.

    A copy that a module keeps to itself (``-Wl,--exclude-libs,ALL``) is not found, and does no harm.
    """
    if _CXX_RUNTIME in (elf.soname, *elf.needed) or not elf.exports({_THROWS}):
        return
    yield Finding(
        code="cxx-runtime-inside",
        severity=Severity.ERROR,
        subject=path,
        seen=f"it exports a copy of {_CXX_RUNTIME}, which it was linked with statically",
        means="the copy and the library of PyTorch get mixed up: an error that should be raised loses its message or "
        "ends the process",
        hint="build it again with attnforge, which links the shared library; or install the compiler's libstdc++.so",
    )


def check_readable(module: Module) -> Iterator[Finding]:
    """Report a module whose needs are unknown."""
    if not module.elf.has_dynamic_symbols:
        yield Finding(
            code="module-hidden",
            severity=Severity.UNCHECKED,
            subject=module.path,
            seen="no section with dynamic symbols",
            means="which symbols and versions it needs is unknown: its section table was taken out",
            hint="build it again, and strip it with nothing stronger than `strip`",
        )


def check_code(module: Module, has_kernels: bool | None = None) -> Iterator[Finding]:
    """Say what is wrong with a module's device code.

    ``has_kernels`` is whether it has to hold any, where that is known; else one that uses CUDA has to.
    """
    code = module.code
    if code.damaged:
        yield Finding(
            code="device-code-unreadable",
            severity=Severity.UNCHECKED,
            subject=module.path,
            seen=f"{code.damaged} fatbins or cubins can't be read",
            means="what they hold is unknown: they are damaged, or of a form newer than this program",
            hint="build the wheel again, or update attnforge",
        )
    if code.mismatched:
        yield Finding(
            code="device-code-mislabelled",
            severity=Severity.ERROR,
            subject=module.path,
            seen="; ".join(code.mismatched),
            means="the driver picks machine code by its label, and then can't load it",
            hint="build the wheel again",
        )
    has_kernels = module.uses_cuda if has_kernels is None else has_kernels
    if has_kernels and not code.architectures and not code.damaged:
        yield _no_machine_code(module)


def check_paths(module: Module) -> Iterator[Finding]:
    """Say which folders of the machine that built it a module looks for libraries in."""
    absolute = [folder for folder in module.elf.rpath if not folder.startswith(("$ORIGIN", "${ORIGIN}"))]
    if absolute:
        yield Finding(
            code="rpath",
            severity=Severity.WARNING,
            subject=module.path,
            seen=", ".join(absolute),
            means="libraries are looked for in folders of the build machine, which another machine lacks or others own",
            hint="link without -rpath, or take it out: patchelf --remove-rpath FILE",
        )


def _no_machine_code(module: Module) -> Finding:
    means = "it launches no kernels"
    if module.code.ptx:
        means = "the driver compiles its PTX at the first use, if it is as new as the PTX"
    return Finding(
        code="no-machine-code",
        severity=Severity.WARNING,
        subject=module.path,
        seen=f"only PTX for {', '.join(module.report.ptx)}" if module.code.ptx else "no machine code for any GPU",
        means=means,
        hint="build for the GPUs that will run it: attnforge build PACKAGE --gpu NAME",
        link="https://github.com/Dao-AILab/flash-attention/issues/1146",
    )

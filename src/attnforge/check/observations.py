"""What a check observes of a wheel besides the results of calls: imports, signatures, PyTorch, GPU. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from packaging.requirements import Requirement

from attnforge.check.verdicts import last_words
from attnforge.model.finding import Finding, Topic
from attnforge.model.target import Architecture
from attnforge.ongpu.protocol import Error, GpuFound

# What the dynamic linker says of a module that calls the driver itself (SageAttention's for 9.0) where there is none.
NO_DRIVER = "libcuda.so.1: cannot open shared object file"

_NOT_COMPUTED = "whether its results are right was not checked"
_ON_ITS_GPU = "run attnforge check on a machine with the GPU that the wheel is for"


def signatures(interface: str, wanted: Mapping[str, Sequence[str]], found: Mapping[str, list[str]]) -> list[Finding]:
    """Return a finding for each function that lacks parameters that upstream's has; or one that all have them."""
    wrong = []
    for name, parameters in wanted.items():
        missing = [one for one in parameters if one not in found.get(name, ())]
        if missing:
            wrong.append(_wrong_signature(f"{interface}.{name}", missing, name in found))
    return wrong or [Topic("signatures", interface).ok(", ".join(wanted))]


def no_gpu() -> Finding:
    """Return the finding that nothing can be computed here."""
    seen = "torch sees no GPU on this machine"
    return Topic("no-gpu", "numbers").unchecked(seen, means=_NOT_COMPUTED, hint=_ON_ITS_GPU)


def another_torch(requirements: Iterable[Requirement], torch: str) -> Iterator[Finding]:
    """Yield a finding for each requirement of the wheel that the PyTorch that it is tried with does not satisfy."""
    for asked in requirements:
        if not asked.specifier.contains(torch, prereleases=True):
            yield Topic("another-torch", "torch").error(
                f"it asks for torch{asked.specifier}, and this is {torch}",
                means="its modules were compiled for another PyTorch: even calls that work may read memory wrongly",
                hint="check it with that PyTorch, or build it for this one: attnforge build PACKAGE --torch VERSION",
                link="https://github.com/Dao-AILab/flash-attention/issues/723",
            )


def not_imported(module: str, error: Error, hint: str) -> Finding:
    """Return the finding of a module that can't be imported; ``hint`` is the command that makes another wheel."""
    lines = str(error["text"]).strip().splitlines() or [""]
    seen = f"{error['type']}: {lines[0]}"[:400]
    if error["type"] == "Crash":
        seen = "; ".join((seen, *last_words(str(error["trace"]))))
    if NO_DRIVER in seen:
        return Topic("no-driver", module).unchecked(
            seen,
            means="it needs the NVIDIA driver, which this machine lacks: whether it imports was not checked",
            hint=_ON_ITS_GPU,
        )
    undefined = "undefined symbol" in seen
    return Topic("import-failed", module).error(
        seen,
        means="it was built for another PyTorch"
        if undefined
        else "the wheel can't be used with this Python and PyTorch",
        hint=hint,
        link="https://github.com/Dao-AILab/flash-attention/issues/723" if undefined else "",
    )


def _wrong_signature(function: str, missing: list[str], is_there: bool) -> Finding:
    return Topic("signature", function).error(
        f"it has no {', '.join(missing)}" if is_there else "there is no such function",
        means="programs that call it as upstream documents fail",
        hint="build the wheel from upstream's release",
    )


def not_served(gpu: GpuFound, architectures: Sequence[str]) -> Finding | None:
    """Return a finding where the wheel's coverage leaves this GPU out; None where it has it, or where there is none."""
    capability = Architecture.parse(gpu["capability"])
    if not architectures or any(Architecture.parse(one).runs_on(capability) for one in architectures):
        return None
    return Topic("other-gpu", "numbers").unchecked(
        f"the wheel is for {', '.join(architectures)}, and this is a {gpu['name']} ({gpu['capability']})",
        means=_NOT_COMPUTED,
        hint=_ON_ITS_GPU,
    )


def no_cases(package: str, imported: Sequence[str]) -> Finding:
    """Return the finding of a package that no cases are known for."""
    known = "it imports" if imported else "it has no compiled module to import"
    return Topic("no-cases", "numbers").unchecked(
        f"attnforge has no cases for {package}",
        means=f"{known}; whether its results are right was not checked",
    )

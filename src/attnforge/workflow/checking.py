"""Checks a wheel: whether it imports, what its functions take, and on a GPU whether it computes the right thing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnforge.audit.metadata import import_name
from attnforge.check.cases import cases_for, subject_of
from attnforge.check.verdicts import findings_of, is_fatal, last_words, not_run, result_of
from attnforge.embedded import read_coverage, read_plan
from attnforge.errors import HostError
from attnforge.files import file_sha256, write_whole
from attnforge.knowledge.behaviour import Behaviour, find_behaviour
from attnforge.model.audit import ModuleReport, verdict_of
from attnforge.model.check import Case, CaseResult, CheckReport, GpuSeen
from attnforge.model.finding import Finding, Severity
from attnforge.model.target import Architecture
from attnforge.workflow.asking import torch_requirements
from attnforge.workflow.auditing import audit_against
from attnforge.workflow.beside import environment_beside
from attnforge.workflow.machine import Machine
from attnforge.workflow.trial import NO_DRIVER, START_SECONDS, Child, WheelFile, read_name, trial

# After so many crashes, and after so many hangs, nothing more is tried: each costs a start or the whole time limit.
_MOST_CRASHES = 5
_MOST_HANGS = 2

TIMEOUT = 120.0

_NOT_COMPUTED = "whether it computes the right thing was not looked at"
_ON_ITS_GPU = "run attnforge check on a machine with the GPU that the wheel is for"


def ignore(result: CaseResult) -> None:
    """Do nothing with a result as it comes."""


def check(
    machine: Machine,
    wheel: Path,
    *,
    python: str = "",
    torch: str = "",
    quick: bool = False,
    only: tuple[str, ...] = (),
    timeout: float = TIMEOUT,
    device: str = "cuda",
    observe: Callable[[CaseResult], None] = ignore,
    tell: Callable[[str], object] = str,
) -> CheckReport:
    """Try a wheel and say what came of it; ``observe`` gets each result as it comes.

    ``python`` names an environment or interpreter with PyTorch, where nothing is installed; ``torch`` ``installed`` is
    the active one. Where neither is given, the active one counts if the wheel is for its PyTorch; ``tell`` gets a line
    on that. Else a clean environment is made, with ``torch`` or with what the wheel asks for. ``timeout`` is seconds
    for each case. ``device`` is ``cpu`` for packages that compute there: tests of our own. Without a GPU the report has
    what can be told without one, and is unchecked. Raises RequestError, HostError or WheelError where it can't be
    tried at all.
    """
    began = time.monotonic()
    file = read_name(wheel)
    beside = environment_beside(machine, [wheel], python, torch, tell)
    python = beside.python if beside else python
    with trial(machine, file, python, torch) as place, Child(place) as child:
        run = _Check(file, child, quick, only, timeout, device, observe, beside.libraries if beside else ())
        run.all()
    return CheckReport(
        wheel=wheel.name,
        sha256=file_sha256(wheel),
        package=file.package,
        version=file.version,
        python=run.here.get("python", ""),
        torch=run.here.get("torch", ""),
        cuda=run.here.get("cuda", ""),
        gpus=tuple(GpuSeen.model_validate(gpu) for gpu in run.here.get("gpus", ())),
        quick=quick,
        only=only,
        smoke=next((result.said for result in run.results if result.topic == "smoke" and result.said), ""),
        coverage=run.coverage,
        results=tuple(run.results),
        findings=tuple(run.findings),
        verdict=verdict_of(tuple(run.findings)),
        seconds=round(time.monotonic() - began, 2),
    )


def write_check(report: CheckReport, folder: Path) -> Path:
    """Write a report into a folder as ``WHEEL.check.json`` and return its path. HostError where it can't be written."""
    path = folder / f"{report.wheel}.check.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(report.to_json(), indent=1) + "\n")
    except OSError as error:
        raise HostError(f"{path} can't be written", why=str(error), hint="name another folder") from error
    return path


@dataclass
class _Check:
    """One check: what it asks the child, and what it found so far."""

    wheel: WheelFile
    child: Child
    quick: bool
    only: tuple[str, ...]
    timeout: float
    device: str
    observe: Callable[[CaseResult], None]
    libraries: tuple[str, ...] = ()
    here: dict[str, Any] = field(default_factory=dict)
    results: list[CaseResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coverage = read_coverage(self.wheel.path)
        self.behaviour = find_behaviour(self.wheel.package, self.wheel.version)

    def all(self) -> None:
        """Look at all that can be looked at."""
        self.here = self.child.ask("about", {"do": "look"}, START_SECONDS)
        if "error" in self.here:
            error, self.here = self.here["error"], {}
            raise HostError(
                "PyTorch can't say what is on this machine",
                why=f"{error['type']}: {error['text']}",
                hint="nvidia-smi shows whether driver and GPU work; --python PATH names another interpreter",
            )
        audited = audit_against(self.wheel.path, Path(self.here["site"]), self.libraries)
        modules = _modules_of(audited.modules, self.behaviour)
        imported = self._imports(modules)
        # What was imported has all its symbols: Python has them all bound at once.
        # A check is of the pair that runs: which others a universal wheel holds is not asked.
        settled = ("symbols-unchecked", "pairs-left") if imported else ("pairs-left",)
        told = (one for one in audited.findings if one.severity is not Severity.OK and one.code not in settled)
        self.findings[:0] = told
        if not imported:
            return
        if self.behaviour is None:
            self.findings.append(_unknown(self.wheel.package, modules))
            return
        self.findings += _another_torch(self.wheel.path, self.here["torch"], self.here["python"])
        self.findings += self._signatures(self.behaviour)
        absent = self._without_gpu()
        if absent:
            self.findings.append(absent)
            return
        self.results = list(self._run(self.behaviour))
        self.findings += findings_of(self.results, self.behaviour.faults)

    def _imports(self, modules: tuple[str, ...]) -> bool:
        """Import each module; say which can't be, and whether none is broken."""
        imported, findings = [], []
        for module in modules:
            answer = self.child.ask("about", {"do": "load", "modules": [module]}, START_SECONDS)
            if "error" in answer:
                findings.append(_not_imported(module, answer["error"], self._mend()))
            else:
                imported.append(module)
        if imported:
            seen = ", ".join(imported)
            self.findings.append(Finding(code="import", severity=Severity.OK, subject="import", seen=seen))
        self.findings += findings
        return all(finding.severity is Severity.UNCHECKED for finding in findings)

    def _mend(self) -> str:
        """Return the command that makes a wheel for this Python and PyTorch, as text."""
        plan = read_plan(self.wheel.path)
        here = tuple(".".join(self.here[name].split("+")[0].split(".")[:2]) for name in ("torch", "python"))
        if plan and plan.is_universal and here not in {pair.key for pair in plan.pairs}:
            torch, python = here
            return f"add what it lacks: attnforge extend {self.wheel.path.name} --torch {torch} --python {python}"
        return "build it for this PyTorch: attnforge build PACKAGE --torch VERSION"

    def _signatures(self, behaviour: Behaviour) -> Iterator[Finding]:
        """Hold functions against the parameters that upstream's have."""
        names = list(behaviour.parameters)
        asked = {"do": "signatures", "module": behaviour.interface, "names": names}
        found: Mapping[str, list[str]] = self.child.ask("about", asked, START_SECONDS).get("functions", {})
        wrong = False
        for name, parameters in behaviour.parameters.items():
            missing = [one for one in parameters if one not in found.get(name, ())]
            if missing:
                wrong = True
                yield _wrong_signature(f"{behaviour.interface}.{name}", missing, name in found)
        if not wrong:
            seen = ", ".join(names)
            yield Finding(code="signatures", severity=Severity.OK, subject=behaviour.interface, seen=seen)

    def _without_gpu(self) -> Finding | None:
        """Return why nothing can be computed here, or None."""
        if self.device == "cpu":
            return None
        if not self.here["gpus"]:
            seen = "torch sees no GPU on this machine"
            return Finding(
                code="no-gpu",
                severity=Severity.UNCHECKED,
                subject="numbers",
                seen=seen,
                means=_NOT_COMPUTED,
                hint=_ON_ITS_GPU,
            )
        return _not_served(self.here["gpus"][0], (self.coverage or {}).get("architectures", ()))

    def _run(self, behaviour: Behaviour) -> Iterator[CaseResult]:
        asked = {"package": self.wheel.package, "device": self.device}
        opened = self.child.ask("checks", {"do": "open", **asked}, START_SECONDS)
        if "error" in opened:
            self.findings.append(_not_imported(behaviour.interface, opened["error"], self._mend()))
            return
        cases = cases_for(subject_of(behaviour, self.coverage, opened, self.quick, self.only))
        stopped, counts = "", {"crash": 0, "hang": 0}
        for case in cases:
            result = not_run(case, stopped) if stopped else self._tried(case, behaviour, asked)
            counts[result.code] = counts.get(result.code, 0) + 1
            stopped = stopped or _stop(result, counts)
            self.observe(result)
            yield result

    def _tried(self, case: Case, behaviour: Behaviour, asked: Mapping[str, Any]) -> CaseResult:
        request = {"do": "case", **asked, "case": case.to_json(), "rule": behaviour.rule}
        return result_of(case, self.child.ask("checks", request, self.timeout))


def _stop(result: CaseResult, counts: Mapping[str, int]) -> str:
    """Return why nothing more is to be tried, or "" to go on."""
    if is_fatal(result):
        return "no kernel runs on this GPU"
    if counts["hang"] >= _MOST_HANGS:
        return f"given up after {counts['hang']} calls that did not return"
    if counts["crash"] >= _MOST_CRASHES:
        return f"given up after {counts['crash']} calls that ended the process"
    return ""


def _another_torch(wheel: Path, torch: str, python: str) -> Iterator[Finding]:
    """Say where a wheel asks for other versions of PyTorch, with that Python, than the one that it was tried with."""
    for asked in torch_requirements(wheel, python):
        if not asked.specifier.contains(torch, prereleases=True):
            yield Finding(
                code="another-torch",
                severity=Severity.ERROR,
                subject="torch",
                seen=f"it asks for torch{asked.specifier}, and this is {torch}",
                means="its modules were compiled for another PyTorch: what works today may read memory wrongly",
                hint="check it with that PyTorch, or build it for this one: attnforge build PACKAGE --torch VERSION",
                link="https://github.com/Dao-AILab/flash-attention/issues/723",
            )


def _modules_of(modules: tuple[ModuleReport, ...], behaviour: Behaviour | None) -> tuple[str, ...]:
    """Return the import names of what is imported: what is known of the package, and each compiled module."""
    compiled = (name for name in _compiled(modules) if "-" not in name)
    return tuple(dict.fromkeys((*(behaviour.modules if behaviour else ()), *compiled)))


def _compiled(modules: tuple[ModuleReport, ...]) -> Iterator[str]:
    for module in modules:
        path = Path(module.path)
        # A pair's module is reached by the name of its loader, which takes the one that fits.
        yield import_name(module.path) if module.pair else ".".join((*path.parent.parts, path.name.split(".")[0]))


def _not_imported(module: str, error: Mapping[str, Any], hint: str) -> Finding:
    lines = str(error["text"]).strip().splitlines() or [""]
    seen = f"{error['type']}: {lines[0]}"[:400]
    if error["type"] == "Crash":
        seen = "; ".join((seen, *last_words(str(error["trace"]))))
    if NO_DRIVER in seen:
        return Finding(
            code="no-driver",
            severity=Severity.UNCHECKED,
            subject=module,
            seen=seen,
            means="it needs the driver, which this machine has not: whether it imports was not looked at",
            hint=_ON_ITS_GPU,
        )
    undefined = "undefined symbol" in seen
    return Finding(
        code="import-failed",
        severity=Severity.ERROR,
        subject=module,
        seen=seen,
        means="it was built for another PyTorch"
        if undefined
        else "the wheel can't be used with this Python and PyTorch",
        hint=hint,
        link="https://github.com/Dao-AILab/flash-attention/issues/723" if undefined else "",
    )


def _wrong_signature(function: str, missing: list[str], is_there: bool) -> Finding:
    return Finding(
        code="signature",
        severity=Severity.ERROR,
        subject=function,
        seen=f"it has no {', '.join(missing)}" if is_there else "there is no such function",
        means="programs that call it as upstream says will fail",
        hint="build the wheel from upstream's release",
    )


def _not_served(gpu: Mapping[str, Any], architectures: tuple[str, ...]) -> Finding | None:
    """Say where the wheel does not claim to have code for this GPU; None where it does, or says nothing."""
    capability = Architecture.parse(gpu["capability"])
    if not architectures or any(Architecture.parse(one).runs_on(capability) for one in architectures):
        return None
    return Finding(
        code="other-gpu",
        severity=Severity.UNCHECKED,
        subject="numbers",
        seen=f"the wheel is for {', '.join(architectures)}, and this is a {gpu['name']} ({gpu['capability']})",
        means=_NOT_COMPUTED,
        hint=_ON_ITS_GPU,
    )


def _unknown(package: str, imported: Sequence[str]) -> Finding:
    looked = "it imports" if imported else "it has no compiled module to import"
    return Finding(
        code="no-cases",
        severity=Severity.UNCHECKED,
        subject="numbers",
        seen=f"attnforge has no cases for {package}",
        means=f"{looked}, and whether it computes the right thing was not looked at",
    )

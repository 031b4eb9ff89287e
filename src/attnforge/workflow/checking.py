"""Checks a wheel: whether it imports, what its functions take, and on a GPU whether it computes the right thing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attnforge.audit.metadata import import_name
from attnforge.check import observations
from attnforge.check.cases import cases_for
from attnforge.check.subject import subject_of
from attnforge.check.verdicts import findings_of, is_fatal, not_run, result_of
from attnforge.errors import HostError
from attnforge.files import file_sha256, write_whole
from attnforge.knowledge.behaviour import Behaviour, find_behaviour
from attnforge.model.audit import ModuleReport, verdict_of
from attnforge.model.check import Case, CaseResult, CheckReport, GpuSeen
from attnforge.model.finding import Finding, Severity, Topic
from attnforge.ongpu.protocol import Failed, Loaded, Look, Opened, Signatures
from attnforge.wheelfile.embedded import read_coverage, read_plan
from attnforge.wheelfile.metadata import read_metadata, torch_requirements
from attnforge.workflow.auditing import audit_against
from attnforge.workflow.beside import environment_beside
from attnforge.workflow.child import START_SECONDS, Child
from attnforge.workflow.fitting import WheelFile, read_name
from attnforge.workflow.machine import Machine
from attnforge.workflow.trial import trial

# After so many crashes, and after so many hangs, nothing more is tried: each costs a start or the whole time limit.
_MOST_CRASHES = 5
_MOST_HANGS = 2

TIMEOUT = 120.0


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
    """Try a wheel and return the report; ``observe`` gets each result as it comes.

    ``python`` names an environment or interpreter with PyTorch, where nothing is installed; ``torch`` ``installed`` is
    the active one. Where neither is given, the active one is used if the wheel is for its PyTorch; ``tell`` gets a line
    on that. Else a clean environment is made, with ``torch`` or with what the wheel asks for. ``timeout`` is seconds
    for each case. ``device`` is ``cpu`` for packages that compute there: tests of our own. Without a GPU the report has
    what can be checked without one, and is unchecked. Raises RequestError, HostError or WheelError where it can't be
    tried at all.
    """
    began = time.monotonic()
    file = read_name(wheel)
    beside = environment_beside(machine, [wheel], python, torch, tell)
    python = beside.python if beside else python
    with trial(machine, file, python, torch) as place, Child(place) as child:
        run = _Check(file, child, quick, only, timeout, device, observe, beside.libraries if beside else ())
        run.all()
    return run.report(time.monotonic() - began)


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
    results: list[CaseResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.coverage = read_coverage(self.wheel.path)
        self.behaviour = find_behaviour(self.wheel.package, self.wheel.version)
        self.here = _look(self.child)

    def all(self) -> None:
        """Audit the wheel, import it, compare its functions with upstream's, and run the cases."""
        here = self.here
        audited = audit_against(self.wheel.path, Path(here["site"]), self.libraries)
        modules = modules_of(audited.modules, self.behaviour)
        imported = self._imports(modules)
        # An import binds all symbols. A check is of the pair that runs: the other pairs are the audit's subject.
        settled = ("symbols-unchecked", "pairs-left") if imported else ("pairs-left",)
        self.findings[:0] = (
            one for one in audited.findings if one.severity is not Severity.OK and one.code not in settled
        )
        if not imported:
            return
        if self.behaviour is None:
            self.findings.append(observations.no_cases(self.wheel.package, modules))
            return
        requirements = torch_requirements(read_metadata(self.wheel.path), here["python"])
        self.findings += observations.another_torch(requirements, here["torch"])
        self.findings += self._signatures(self.behaviour)
        absent = self._without_gpu()
        if absent:
            self.findings.append(absent)
            return
        self.results = list(self._run(self.behaviour))
        self.findings += findings_of(self.results, self.behaviour.faults, self.behaviour.advice)

    def report(self, seconds: float) -> CheckReport:
        """Return what was found; ``seconds`` is the wall time of the whole."""
        return CheckReport(
            wheel=self.wheel.path.name,
            sha256=file_sha256(self.wheel.path),
            package=self.wheel.package,
            version=self.wheel.version,
            python=self.here["python"],
            torch=self.here["torch"],
            cuda=self.here["cuda"],
            gpus=tuple(GpuSeen.model_validate(gpu) for gpu in self.here["gpus"]),
            quick=self.quick,
            only=self.only,
            smoke=next((result.said for result in self.results if result.topic == "smoke" and result.said), ""),
            coverage=self.coverage,
            results=tuple(self.results),
            findings=tuple(self.findings),
            verdict=verdict_of(tuple(self.findings)),
            seconds=round(seconds, 2),
        )

    def _imports(self, modules: tuple[str, ...]) -> bool:
        """Import each module, record which fail, and return whether none is broken."""
        imported, findings = [], []
        for module in modules:
            answer: Loaded | Failed = self.child.ask("about", {"do": "load", "modules": [module]}, START_SECONDS)
            if "error" in answer:
                findings.append(observations.not_imported(module, answer["error"], self._hint()))
            else:
                imported.append(module)
        if imported:
            self.findings.append(Topic("import", "import").ok(", ".join(imported)))
        self.findings += findings
        return all(finding.severity is Severity.UNCHECKED for finding in findings)

    def _hint(self) -> str:
        """Return the command that makes a wheel for this Python and PyTorch, as text."""
        plan = read_plan(self.wheel.path)
        torch, python = (".".join(self.here[name].split("+")[0].split(".")[:2]) for name in ("torch", "python"))
        if plan and plan.is_universal and (torch, python) not in {pair.key for pair in plan.pairs}:
            return f"add what it lacks: attnforge extend {self.wheel.path.name} --torch {torch} --python {python}"
        return "build it for this PyTorch: attnforge build PACKAGE --torch VERSION"

    def _signatures(self, behaviour: Behaviour) -> list[Finding]:
        asked = {"do": "signatures", "module": behaviour.interface, "names": list(behaviour.parameters)}
        answer: Signatures | Failed = self.child.ask("about", asked, START_SECONDS)
        found = {} if "error" in answer else answer["functions"]
        return observations.signatures(behaviour.interface, behaviour.parameters, found)

    def _without_gpu(self) -> Finding | None:
        """Return why nothing can be computed here, or None."""
        if self.device == "cpu":
            return None
        if not self.here["gpus"]:
            return observations.no_gpu()
        return observations.not_served(self.here["gpus"][0], (self.coverage or {}).get("architectures", ()))

    def _run(self, behaviour: Behaviour) -> Iterator[CaseResult]:
        asked = {"package": self.wheel.package, "device": self.device}
        opened: Opened | Failed = self.child.ask("checks", {"do": "open", **asked}, START_SECONDS)
        if "error" in opened:
            self.findings.append(observations.not_imported(behaviour.interface, opened["error"], self._hint()))
            return
        cases = cases_for(subject_of(behaviour, self.coverage, opened, self.quick, self.only))
        stopped, counts = "", Counter[str]()
        for case in cases:
            result = not_run(case, stopped) if stopped else self._tried(case, behaviour, asked)
            counts[result.code] += 1
            stopped = stopped or _stop(result, counts)
            self.observe(result)
            yield result

    def _tried(self, case: Case, behaviour: Behaviour, asked: Mapping[str, str]) -> CaseResult:
        request = {"do": "case", **asked, "case": case.to_json(), "rule": behaviour.rule}
        return result_of(case, self.child.ask("checks", request, self.timeout))


def _look(child: Child) -> Look:
    seen: Look | Failed = child.ask("about", {"do": "look"}, START_SECONDS)
    if "error" in seen:
        raise HostError(
            "PyTorch can't report what is on this machine",
            why=f"{seen['error']['type']}: {seen['error']['text']}",
            hint="nvidia-smi shows whether driver and GPU work; --python PATH names another interpreter",
        )
    return seen


def _stop(result: CaseResult, counts: Mapping[str, int]) -> str:
    """Return why nothing more is to be tried, or "" to go on."""
    if is_fatal(result):
        return "no kernel runs on this GPU"
    if counts["hang"] >= _MOST_HANGS:
        return f"given up after {counts['hang']} calls that did not return"
    if counts["crash"] >= _MOST_CRASHES:
        return f"given up after {counts['crash']} calls that ended the process"
    return ""


def modules_of(modules: tuple[ModuleReport, ...], behaviour: Behaviour | None) -> tuple[str, ...]:
    """Return the names to import: those that are known of the package, and each compiled module."""
    compiled = (name for name in _compiled(modules) if "-" not in name)
    return tuple(dict.fromkeys((*(behaviour.modules if behaviour else ()), *compiled)))


def _compiled(modules: tuple[ModuleReport, ...]) -> Iterator[str]:
    for module in modules:
        path = Path(module.path)
        # A module of a pair is imported by the name of its loader, which chooses the one that fits.
        yield import_name(module.path) if module.pair else ".".join((*path.parent.parts, path.name.split(".")[0]))

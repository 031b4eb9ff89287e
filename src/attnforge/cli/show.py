"""Turns values into lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from attnforge.audit.metadata import import_name
from attnforge.audit.record import listed
from attnforge.audit.universal import told_pairs
from attnforge.errors import AttnforgeError
from attnforge.model.audit import AuditReport, KernelCount, ModuleReport
from attnforge.model.comparison import Comparison, FunctionDifference, ModuleComparison
from attnforge.model.finding import Finding, Severity
from attnforge.model.plan import BuildPlan, Fetch, Resolution
from attnforge.model.target import Gpu
from attnforge.model.universal import pair_of
from attnforge.resolve.spans import described

_MARKS = {
    Severity.OK: "ok  ",
    Severity.INFO: "    ",
    Severity.WARNING: "warn",
    Severity.UNCHECKED: "????",
    Severity.ERROR: "BAD ",
}

# How many functions of each sort a comparison shows for a module, and how much of a (template's long) name.
_SHOWN = 3
_LONGEST_NAME = 200


def size(count: float) -> str:
    """Return a number of bytes for people: ``1.5 GB``, in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{int(count)} B"


def duration(seconds: float) -> str:
    """Return seconds for people: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def error_document(error: AttnforgeError) -> dict[str, Any]:
    """Return an error as JSON types."""
    told = {"what": error.what, "why": error.why, "hint": error.hint, "link": error.link}
    return {"schema": 1, "error": told, "exit_code": error.exit_code}


def plan_lines(resolution: Resolution, *, explain: bool) -> Iterator[str]:
    """Yield the lines of a plan."""
    plan, expected = resolution.plan, resolution.estimate
    yield f"{plan.package} {plan.version}  ({plan.source.kind} {plan.source.name}, {plan.source.pinned_by[:19]}…)"
    yield from _target_lines(plan, resolution.gpus)
    if resolution.environment:
        yield f"  against    {resolution.environment}, which is not changed"
    if plan.selection.kept:
        kept, dropped = len(plan.selection.kept), len(plan.selection.dropped)
        without = f"; without {', '.join(plan.selection.without)}" if plan.selection.without else ""
        yield f"  kernels    {kept} of {kept + dropped} units (profile {plan.profile}){without}"
    if expected.seconds:
        compiles = f" with {expected.slots} at once, {size(expected.peak_bytes)} of memory at most"
        yield f"  expected   {duration(expected.seconds)}" + (compiles if expected.peak_bytes else "")
    elif plan.is_compiled:
        unknown = "unknown: nothing is known of the units of this package and version"
        yield "  expected   " + ("up to date: the finished wheel is in the cache" if expected.known else unknown)
    for number, fetch in enumerate(resolution.fetches):
        yield f"  {'' if number else 'to fetch':<10} {fetch.what}, from {fetch.where}: {_fetched(fetch)}"
    yield f"  wheel      {plan.wheel}"
    yield f"  plan       {plan.digest}"
    for warning in resolution.warnings:
        yield f"  warning    {warning.message}" + (f"; {warning.hint}" if warning.hint else "")
        if warning.link:
            yield f"             {warning.link}"
    if explain:
        yield from _decision_lines(resolution)


def _fetched(fetch: Fetch) -> str:
    if not fetch.size:
        return "size unknown until it is fetched"
    return f"about {size(fetch.size)}" if fetch.about else size(fetch.size)


def all_fetched(resolutions: Iterable[Resolution]) -> Iterator[str]:
    """Yield what several builds fetch together. A download that two of them need counts once."""
    fetches = dict.fromkeys(fetch for resolution in resolutions for fetch in resolution.fetches)
    known = sum(fetch.size for fetch in fetches)
    unknown = ", ".join(fetch.what for fetch in fetches if not fetch.size)
    about = "about " if any(fetch.about for fetch in fetches) else ""
    parts = [f"{about}{size(known)}"] if known else []
    parts += [f"of unknown size {unknown}"] if unknown else []
    if parts:
        yield f"to fetch in total: {', and '.join(parts)}"


def _target_lines(plan: BuildPlan, gpus: Sequence[Gpu]) -> Iterator[str]:
    target = plan.target
    if not plan.is_compiled:
        yield "  target     any Python, PyTorch and CUDA: pure Python, nothing is compiled"
        return
    for_one = f"Python {target.python}, PyTorch {target.torch}, CUDA {target.cuda}"
    yield "  target     " + (f"CUDA {target.cuda}, {described(plan.pairs)}" if plan.is_universal else for_one)
    yield f"  for        {', '.join(gpu.name for gpu in gpus)}: " + ", ".join(a.sm for a in target.architectures)
    yield f"  toolchain  {plan.toolchain.origin}: nvcc {plan.toolchain.nvcc}, {plan.toolchain.host_compiler}"


def _decision_lines(resolution: Resolution) -> Iterator[str]:
    yield ""
    for decision in resolution.decisions:
        yield f"  {decision.subject}: {decision.choice}"
        yield f"      because {decision.reason}"
        for rejected in decision.rejected:
            yield f"      not {rejected.choice}: {rejected.reason}"


def finding_lines(finding: Finding) -> Iterator[str]:
    """Yield the lines of a finding: what was seen, what it means, how to fix it."""
    yield f"{_MARKS[finding.severity]}  {finding.subject}: {finding.seen}"
    if finding.means:
        yield f"        {finding.means}"
    if finding.hint:
        yield f"        hint: {finding.hint}"
    if finding.link:
        yield f"        see: {finding.link}"


def audit_lines(report: AuditReport) -> Iterator[str]:
    """Yield the lines of an audit."""
    yield f"{report.wheel}: {report.verdict}"
    for module in report.modules:
        if not module.pair:
            yield f"  {module.path}  {size(module.size)}"
            yield from _module_lines(module)
    of_pairs = sorted((module for module in report.modules if module.pair), key=lambda one: import_name(one.path))
    for name, modules in groupby(of_pairs, lambda one: import_name(one.path)):
        yield from _pair_lines(name, list(modules))
    needs = [f"glibc {report.glibc}"] if report.glibc else []
    needs += [f"libstdc++ GLIBCXX_{report.glibcxx}"] if report.glibcxx else []
    yield f"  platform   {report.platform_tag}" + (f" (needs {', '.join(needs)})" if needs else "")
    for finding in report.findings:
        if finding.code == "symbols":
            yield f"  symbols    {finding.subject}: {finding.seen}"
    for finding in grouped(report.findings):
        if finding.severity is not Severity.OK:
            yield from (f"  {line}" for line in finding_lines(finding))


def grouped(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings. Those that say the same about several files become one, with their number."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        said = (finding.severity, finding.code, finding.means, finding.hint, finding.link)
        alike.setdefault(said, []).append(finding)
    for same in alike.values():
        subjects = list(dict.fromkeys(finding.subject for finding in same))
        seen = list(dict.fromkeys(finding.seen for finding in same))
        count = f"{len(same)} times: " if len(same) > 1 else ""
        yield same[0].model_copy(update={"subject": count + listed(subjects), "seen": listed(seen)})


def _pair_lines(name: str, modules: Sequence[ModuleReport]) -> Iterator[str]:
    """Yield the lines of all modules of one name in a universal wheel, and the kernels in them."""
    pairs = [pair for module in modules if (pair := pair_of(module.path))]
    sizes = [module.size for module in modules]
    low, high = size(min(sizes)), size(max(sizes))
    count = "1 module" if len(modules) == 1 else f"{len(modules)} modules"
    yield f"  {name}  {count} of {low if low == high else f'{low} to {high}'}: {told_pairs(pairs)}"
    kernels = dict.fromkeys((module.architectures, module.ptx, module.kernels) for module in modules)
    for architectures, ptx, counts in kernels:
        yield from _code_lines(architectures, ptx, counts)


def _module_lines(module: ModuleReport) -> Iterator[str]:
    yield from _code_lines(module.architectures, module.ptx, module.kernels)
    if module.needed:
        yield f"    needs {', '.join(module.needed)}"


def _code_lines(
    architectures: tuple[str, ...], ptx: tuple[str, ...], kernels: tuple[KernelCount, ...]
) -> Iterator[str]:
    if architectures or ptx:
        code = ", ".join(architectures) or "none"
        yield f"    machine code {code}" + (f"; PTX {', '.join(ptx)}" if ptx else "")
    if kernels:
        yield "    kernels " + ", ".join(f"{k.count} for head dimension {k.head_dim} {k.dtype}" for k in kernels)


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of a comparison: the verdict, counts for each module and architecture, the first differences."""
    yield f"{comparison.verdict}: the machine code of two wheels"
    yield f"  a  {comparison.a}"
    yield f"  b  {comparison.b}"
    for module in comparison.modules:
        yield from _compared_lines(module)
    for text in comparison.uncompared:
        yield f"  {_MARKS[Severity.UNCHECKED]}  {text}"


def _compared_lines(module: ModuleComparison) -> Iterator[str]:
    sorts = (("different", len(module.different)), ("only in a", len(module.only_a)), ("only in b", len(module.only_b)))
    counts = [f"{module.same} functions the same", *(f"{count} {name}" for name, count in sorts if count)]
    mark = _MARKS[Severity.OK if module.is_same else Severity.ERROR]
    yield f"  {mark}  {module.path} {module.architecture}: {', '.join(counts)}"
    for difference in module.different[:_SHOWN]:
        yield f"        different: {_name(difference.function)}"
        yield f"            {', '.join(_differing(difference))}"
    for name, functions in (("a", module.only_a), ("b", module.only_b)):
        yield from (f"        only in {name}: {_name(function)}" for function in functions[:_SHOWN])
    sorts_shown = (module.different, module.only_a, module.only_b)
    hidden = sum(max(0, len(functions) - _SHOWN) for functions in sorts_shown)
    if hidden:
        yield f"        and {hidden} more: --json lists all"


def _differing(difference: FunctionDifference) -> Iterator[str]:
    """Yield what differs, numbers as ``registers 40 -> 48``."""
    for name in ("code", "constants", "attributes"):
        if getattr(difference, name) == "different":
            yield name
    for name in ("registers", "shared", "constant", "frame", "stack"):
        a, b = getattr(difference, name)
        if a != b:
            yield f"{name} {a} -> {b}"


def _name(function: str) -> str:
    """Cut a long name in the middle: kernels of one template differ in their last arguments."""
    half = _LONGEST_NAME // 2
    return function if len(function) <= _LONGEST_NAME else f"{function[:half]}…{function[-half:]}"

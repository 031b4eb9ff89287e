"""From the child's answers to results, and from results to findings. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from attnforge.knowledge.behaviour import Advice, Fault
from attnforge.model.check import Case, CaseResult, Status
from attnforge.model.finding import Finding, Severity, Topic
from attnforge.ongpu.protocol import CheckAnswer, Error, Failed, Measure

# Messages of CUDA for a kernel that was not compiled for this GPU.
_NO_IMAGE = ("no kernel image is available", "cudaErrorNoKernelImageForDevice", "device kernel image is invalid")
_CUDA = ("CUDA error", "CUDA driver error", "cudaError", "AcceleratorError", "an illegal memory access")

# What a code means, what fixes it, and a link.
_MEANINGS: dict[str, tuple[str, str, str]] = {
    "wrong-result": ("the results are wrong", "do not use the wheel; build it again from upstream's release", ""),
    "unwritten-output": (
        "elements of results were never written: they are what was in memory before",
        "do not use the wheel",
        "",
    ),
    "not-repeatable": ("the same call gives other results", "do not use the wheel: kernels race", ""),
    "call-failed": (
        "a call for something that the wheel has to have raises",
        "attnforge build makes a wheel with it",
        "",
    ),
    "no-kernel-image": (
        "the wheel has no machine code for this GPU",
        "build it for this GPU: attnforge build PACKAGE --gpu native",
        "https://github.com/Dao-AILab/flash-attention/issues/1146",
    ),
    "cuda-error": ("a kernel failed on the GPU", "do not use the wheel on this GPU", ""),
    "crash": ("a call ended the process", "do not use the wheel; the report has its last words", ""),
    "hang": ("a call did not return", "do not use the wheel; --timeout gives a slow machine more time", ""),
    "left-out-silent": (
        "a call for something that was left out computes a result in silence, and it can't be right",
        "do not use the wheel; attnforge build makes one that raises",
        "",
    ),
    "left-out-unnamed": (
        "a call for something that was left out raises, but does not say what was left out and what builds it",
        "build the wheel again with this attnforge",
        "",
    ),
    "error-silent": ("a call that upstream refuses computes something", "do not use the wheel", ""),
    "error-lost": (
        "a call that upstream refuses raises, without upstream's message: errors do not come through whole",
        "build it again with attnforge; `attnforge audit` says whether it has its own copy of the C++ library",
        "",
    ),
    "known-fault": ("upstream's own release computes this wrong", "", ""),
    "graph-break": (
        "torch.compile can't take the call into one graph",
        "a later version may have custom operators",
        "",
    ),
}

# Ways to fail that are open to a call which upstream does not promise. To be wrong in silence is open to none.
_OPEN = ("call-failed", "graph-break", "no-kernel-image", "cuda-error")

# The codes of cases that failed.
CODES = tuple(_MEANINGS)


def result_of(case: Case, answer: CheckAnswer | Failed) -> CaseResult:
    """Return what an answer of ongpu/checks.py, or an error of the child, means for a case."""
    status, code, said = _outcome(case, answer)
    given: CheckAnswer = {} if "error" in answer else answer
    return CaseResult(
        name=case.name,
        topic=case.topic,
        dtype=case.dtype,
        head_dim=case.head_dim,
        status=status,
        code=code,
        said=said,
        figures=_figures(given),
        changed_inputs=tuple(given.get("changed_inputs", ())),
        promised=case.promised,
        fault=case.fault if code == "known-fault" else "",
        seconds=round(float(given.get("seconds", 0.0)), 4),
    )


def not_run(case: Case, why: str) -> CaseResult:
    """Return the result of a case that was not tried."""
    return CaseResult(
        name=case.name, topic=case.topic, dtype=case.dtype, head_dim=case.head_dim, status="not-run", said=why
    )


def is_fatal(result: CaseResult) -> bool:
    """Whether nothing else can be learned after this: no kernel of the wheel runs on this GPU."""
    return result.code == "no-kernel-image" and result.promised


def _outcome(case: Case, answer: CheckAnswer | Failed) -> tuple[Status, str, str]:
    """Return status, code and what was seen."""
    if "error" in answer:
        return _of_error(case, answer["error"])
    if case.left_out:
        return _of_left_out(case, answer["raised"])
    if case.refused:
        return _of_refused(case, answer["raised"])
    if "skipped" in answer:
        return "skipped", "", str(answer["skipped"])
    if any(measure["not_finite"] for measure in answer["measures"]):
        count = sum(measure["not_finite"] for measure in answer["measures"])
        return "failed", "unwritten-output", f"{count} elements are NaN or infinite and should be numbers"
    if "wrong" in answer:
        return "failed", "wrong-result", str(answer["wrong"])
    bad = [measure for measure in answer["measures"] if not measure["ok"]]
    if bad:
        # A known fault of upstream's release is no broken wheel: its results are not that far off.
        known = case.fault and all(measure.get("cosine", 0.0) >= case.least_cosine for measure in bad)
        return "failed", "known-fault" if known else "wrong-result", _off(bad[0])
    if not answer.get("repeats", True):
        return "failed", "not-repeatable", "the same call twice gives two results"
    return "passed", "", str(answer.get("output", ""))


def _off(measure: Measure) -> str:
    if "shape" in measure:
        return f"the result has the shape {measure['shape']} and should have {measure['expected_shape']}"
    if "bound" in measure:
        return f"largest error {measure['largest_error']:.5f}, allowed {measure['bound']:.5f}"
    return f"cosine similarity {measure['cosine']:.5f}, mean relative error {measure['mean_relative']:.4f}"


def _of_error(case: Case, error: Error) -> tuple[Status, str, str]:
    kind, text = str(error["type"]), str(error["text"])
    first = text.strip().splitlines()[0] if text.strip() else ""
    if kind == "Hang":
        return "failed", "hang", text
    if kind == "Crash":
        return "failed", "crash", "; ".join((text, *last_words(str(error["trace"]))))
    said = f"{kind}: {first}"[:300]
    if any(message in text for message in _NO_IMAGE):
        return "failed", "no-kernel-image", said
    if error["sticky"] or any(message in f"{kind}: {text}" for message in _CUDA):
        return "failed", "cuda-error", said
    if case.call == "compile":
        return "failed", "graph-break", said
    if case.kernel and not case.promised:
        return "refused", "", said
    return "failed", "call-failed", said


def last_words(trace: str) -> Iterator[str]:
    """Yield the last line that a process printed before it crashed, and where it was then (Python's faulthandler)."""
    before, _, stack = trace.partition("Fatal Python error:")
    yield from [line.strip() for line in before.splitlines() if line.strip()][-1:]
    yield from [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")][:1]


def _of_left_out(case: Case, raised: str | None) -> tuple[Status, str, str]:
    if raised is None:
        return "failed", "left-out-silent", f"{case.left_out} was left out, and the call raised nothing"
    if not all(any(word in raised for word in words) for words in case.words):
        return "failed", "left-out-unnamed", raised.splitlines()[0][:300]
    return "raised", "", raised.splitlines()[0][:300]


def _of_refused(case: Case, raised: str | None) -> tuple[Status, str, str]:
    if raised is None:
        return "failed", "error-silent", "upstream refuses such a call, and it raised nothing"
    said = next(iter(raised.splitlines()), "")[:300]
    return ("passed", "", said) if case.refused in raised else ("failed", "error-lost", said)


def _figures(answer: CheckAnswer) -> dict[str, float]:
    """Return the worst figures of an answer. The bound is that of the measure that is nearest to its own bound."""
    measures = answer.get("measures", ())
    found = dict(answer.get("figures", {}))
    if measures:
        found["largest_error"] = max(measure["largest_error"] for measure in measures)
        found["mean_relative"] = max(measure["mean_relative"] for measure in measures)
        found["not_finite"] = max(measure["not_finite"] for measure in measures)
        found["cosine"] = min(measure["cosine"] for measure in measures)
        bounded = [measure for measure in measures if measure.get("bound")]
        if bounded:
            worst = max(bounded, key=lambda measure: measure["largest_error"] / measure["bound"])
            found["largest_error"] = worst["largest_error"]
            found["bound"], found["plain_error"] = worst["bound"], worst["plain_error"]
    return {name: float(f"{value:.6g}") for name, value in found.items() if math.isfinite(value)}


def findings_of(
    results: Iterable[CaseResult], faults: Iterable[Fault] = (), advice: Mapping[str, Advice] = MappingProxyType({})
) -> tuple[Finding, ...]:
    """Return what results say: a finding for each code and topic, one for each of upstream's own ``faults`` that was
    seen, and one of what was not run and what was skipped. ``advice`` is the package's, by code."""
    listed = list(results)
    told = [found for fault in faults for found in _fault(fault, listed)]
    broken = [one for one in listed if not one.fault]
    rest = (*_changed(listed), *_refused(listed), *_not_run(listed), *_skipped(listed))
    return (*_failures(broken, listed, advice), *told, *rest)


def _failures(
    broken: Sequence[CaseResult], results: Sequence[CaseResult], advice: Mapping[str, Advice]
) -> Iterator[Finding]:
    failed = sorted(
        (result for result in broken if result.status == "failed"),
        key=lambda result: (not result.promised, list(_MEANINGS).index(result.code), result.topic),
    )
    for (code, topic, promised), group in groupby(failed, key=lambda one: (one.code, one.topic, one.promised)):
        cases = list(group)
        total = sum(result.topic == topic for result in results)
        worst = max(cases, key=_badness)
        means, hint, link = _MEANINGS[code]
        if code in advice:
            hint, link = f"{hint}; {advice[code].hint}", advice[code].link
        is_error = promised or code not in _OPEN
        yield Topic(code, topic).of(
            Severity.ERROR if is_error else Severity.WARNING,
            f"{len(cases)} of {total} cases; {worst.name}: {worst.said}",
            means=means if is_error else f"{means}; upstream does not promise that it works",
            hint=hint if is_error else "",
            link=link,
        )


def _fault(fault: Fault, results: Sequence[CaseResult]) -> Iterator[Finding]:
    seen = [result for result in results if result.fault == fault.id]
    if seen:
        worst = max(seen, key=_badness)
        topics = ", ".join(dict.fromkeys(result.topic for result in seen))
        yield Topic("known-fault", topics).warning(
            f"{fault.id}, {len(seen)} of {len(results)} cases; {worst.name}: {worst.said}",
            means=f"{_MEANINGS['known-fault'][0]}: {fault.message}",
            hint=fault.hint,
        )


def _badness(result: CaseResult) -> float:
    figures = result.figures
    return figures.get("largest_error", 0.0) / (figures.get("bound") or 1.0) + figures.get("mean_relative", 0.0)


def _changed(results: Sequence[CaseResult]) -> Iterator[Finding]:
    """A call that writes into its inputs gives other results where they are used again: SageAttention 1.0.6 does."""
    changing = [result for result in results if result.changed_inputs]
    if changing:
        names = sorted({name for result in changing for name in result.changed_inputs})
        yield Topic("inputs-changed", ", ".join(names)).warning(
            f"{len(changing)} of {len(results)} cases; {changing[0].name}",
            means=f"a call writes into {', '.join(names)}, which the caller may still need",
            hint="pass copies of tensors that are used again",
        )


def _refused(results: Sequence[CaseResult]) -> Iterator[Finding]:
    for said, group in groupby((one for one in results if one.status == "refused"), key=lambda one: one.said):
        cases = list(group)
        yield Topic("kernel-refused", cases[0].topic).info(
            f"{len(cases)} cases; {cases[0].name}: {said}",
            means="upstream has a function for each kind of GPU, and this one is for another",
        )


def _not_run(results: Sequence[CaseResult]) -> Iterator[Finding]:
    left = [result for result in results if result.status == "not-run"]
    if left:
        topics = ", ".join(dict.fromkeys(result.topic for result in left))
        yield Topic("not-run", topics).unchecked(
            f"{len(left)} of {len(results)} cases were not tried: {left[0].said}", means="nothing is known of these"
        )


def _skipped(results: Sequence[CaseResult]) -> Iterator[Finding]:
    for result in results:
        if result.status == "skipped":
            yield Topic("skipped", result.topic).info(
                result.said, means="this was not tried; it does not change the verdict"
            )

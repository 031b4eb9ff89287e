"""Turns the results of a check into lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from attnforge.cli.show import duration, finding_lines
from attnforge.model.check import CaseResult, CheckReport
from attnforge.model.finding import Severity


def topic_lines(results: Sequence[CaseResult]) -> Iterator[str]:
    """Yield the lines of a topic: counts by status, and the figures nearest to their bound."""
    counts = Counter(result.status for result in results)
    bad = any(result.status == "failed" and result.promised and not result.fault for result in results)
    mark = "BAD " if bad else "????" if counts["not-run"] else "warn" if counts["failed"] else "ok  "
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    yield f"  {mark}  {results[0].topic:<9} {told}{_figures(results)}"
    smoke = results[0].said if results[0].topic == "smoke" else ""
    if smoke.startswith("output"):
        yield from smoke.splitlines()


def _figures(results: Sequence[CaseResult]) -> str:
    measured = [result.figures for result in results if result.status != "not-run"]
    bounded = [figures for figures in measured if figures.get("bound")]
    if bounded:
        worst = max(bounded, key=lambda figures: figures["largest_error"] / figures["bound"])
        return f"; largest error {worst['largest_error']:.5f} of {worst['bound']:.5f} allowed"
    cosines = [figures["cosine"] for figures in measured if "cosine" in figures]
    if cosines:
        relative = max(figures["mean_relative"] for figures in measured if "mean_relative" in figures)
        return f"; cosine similarity {min(cosines):.5f} or more, mean relative error {relative:.4f} or less"
    return ""


def check_lines(report: CheckReport) -> Iterator[str]:
    """Yield the last lines of a check: Python, PyTorch and GPU, the findings, the verdict."""
    if report.torch:
        gpus = ", ".join(f"{gpu.name} ({gpu.capability})" for gpu in report.gpus) or "no GPU"
        yield f"  checked with Python {report.python}, PyTorch {report.torch}, {gpus}, in {duration(report.seconds)}"
    for finding in report.findings:
        if finding.severity is not Severity.OK:
            yield from (f"  {line}" for line in finding_lines(finding))
    faulty = sum(bool(result.fault) for result in report.results)
    but = f", except {faulty} cases that upstream computes wrong" if faulty else ""
    yield f"{report.wheel}: {report.verdict}{but}"

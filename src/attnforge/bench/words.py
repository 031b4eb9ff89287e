"""The wording of figures, for the table and the page."""

from __future__ import annotations

from attnforge.model.benchmark import BenchReport, Cell, Result, Shape, Verdict

STATUSES = {
    "timed": "timed",
    "refused": "refused",
    "memory": "out of memory",
    "crashed": "crashed",
    "hung": "no answer",
}

KINDS = {
    "prefill": "Prefill",
    "decode": "Decode",
    "diffusion": "Video diffusion",
    "training": "Training",
}


def three_digits(value: float) -> str:
    """Return a number with three digits that count, and no exponent: ``0.0123``, ``1.23``, ``12.3``, ``1,230``."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def duration(ms: float) -> str:
    """Return milliseconds as people read them: ``412 ms``, ``1.23 ms``, ``34.5 µs``."""
    return f"{three_digits(ms)} ms" if ms >= 0.1 else f"{three_digits(ms * 1e3)} µs"


def percent(share: float) -> str:
    """Return a share: ``62 %``, ``0.4 %``."""
    return f"{100 * share:.0f} %" if abs(share) >= 0.1 else f"{100 * share:.1f} %"


def is_by_memory(cell: Cell) -> bool:
    """Whether the memory's rate is what limits a cell: the next token reads all keys for one row of queries."""
    return cell.shape.kind == "decode"


def rate(cell: Cell, result: Result) -> str:
    """Return how fast a side is, by what limits the cell: TFLOP/s or GB/s."""
    return f"{three_digits(result.gbs)} GB/s" if is_by_memory(cell) else f"{three_digits(result.tflops)} TFLOP/s"


def share(cell: Cell, result: Result) -> str:
    """Return the share of the measured rate."""
    return percent(result.memory_share if is_by_memory(cell) else result.matrix_share)


def spread(result: Result) -> str:
    """Return how far the farther quartile is from the median."""
    return f"±{100 * max(result.high_ms - result.ms, result.ms - result.low_ms) / result.ms:.1f} %"


def sizes(shape: Shape) -> str:
    """Return the sizes of a shape: ``1 x 17,776 tokens, 30 heads of 64``."""
    heads = f"{shape.heads} heads of {shape.head_dim}"
    if shape.kv_heads != shape.heads:
        heads = f"{shape.heads} heads of {shape.head_dim} ({shape.kv_heads} for keys)"
    tokens = f"{shape.rows:,} tokens" if shape.rows == shape.columns else f"{shape.rows:,} on {shape.columns:,} tokens"
    return f"{shape.batch} x {tokens}, {heads}" + (", causal" if shape.causal else "")


def notes(report: BenchReport) -> list[str]:
    """Return what went wrong, each text once, with the cells that it is of."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for cell in report.cells:
        for result in cell.results:
            if result.status != "timed":
                where.setdefault((result.side, STATUSES[result.status], result.text), []).append(cell.name)
    told = [f"{side.name} can't be loaded: {side.error}" for side in report.sides if side.error]
    return told + [f"{side} {status} in {', '.join(names)}: {text}" for (side, status, text), names in where.items()]


def wrong(report: BenchReport) -> list[str]:
    """Return who computed what does not serve, and where."""
    return [
        f"{result.side} computes wrong results in {cell.name}: cosine {result.accuracy.cosine:.5f}, mean relative "
        f"error {result.accuracy.mean_relative:.3f}, {result.accuracy.not_finite} not finite"
        for cell in report.cells
        for result in cell.results
        if result.status == "timed" and result.accuracy and not result.accuracy.right
    ]


def verdict(said: Verdict, a: str, b: str) -> str:
    """Return a verdict as a sentence; times are of a call, and percents of a's."""
    interval = f"{signed(said.low - 1)} to {signed(said.high - 1)}, {100 * said.confidence:.0f} % sure"
    if said.outcome == "same":
        return f"{b} and {a} take the same time within the spread ({interval})"
    if said.outcome == "unclear":
        return f"{b} against {a} is unclear: the spread is too wide ({interval}); more --rounds would narrow it"
    size = f"{100 * abs(said.ratio - 1):.1f} %"
    more = "less" if said.outcome == "faster" else "more"
    return f"{b} is {said.outcome}: it takes {size} {more} time than {a} ({interval})"


def signed(share: float) -> str:
    """Return a difference with its sign: ``+1.3 %``, ``−0.4 %``."""
    return f"{100 * share:+.1f} %".replace("-", "−")


def machine(report: BenchReport) -> str:
    """Return what all was timed on, in a line."""
    gpu = report.gpu.name + (f" ({report.gpu.capability})" if report.gpu.capability else "")
    torches = ", ".join(sorted({side.torch for side in report.sides if side.torch}))
    driver = f", driver {report.driver}" if report.driver else ""
    return f"{gpu}, PyTorch {torches}{driver}; {report.dtype}, {report.rounds} rounds, {report.date[:10]}"


def yardsticks(report: BenchReport) -> str:
    """Return the measured rates in a line."""
    matrix, memory = report.rates.matrix, report.rates.memory
    return (
        f"bf16 matrix product {three_digits(matrix.median)} TFLOP/s ({three_digits(matrix.low)} to "
        f"{three_digits(matrix.high)}), memory {three_digits(memory.median)} GB/s ({three_digits(memory.low)} to "
        f"{three_digits(memory.high)})"
    )

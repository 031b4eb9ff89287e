"""From times to the figures of a report."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from attnforge.bench.statistics import outcome, quartiles, ratio_interval
from attnforge.model.benchmark import Accuracy, Against, Cell, Rate, Rates, Result, Status, Verdict
from attnforge.ongpu.protocol import AccuracyFound, Error, RatesFound

# How long the text of a failure may be: PyTorch explains itself at length.
_LONGEST = 300


def rates(samples: Sequence[RatesFound]) -> Rates:
    """Return the yardsticks from their samples: ``matrix`` in TFLOP/s, ``memory`` in GB/s."""
    return Rates(matrix=_rate([one["matrix"] for one in samples]), memory=_rate([one["memory"] for one in samples]))


def _rate(samples: Sequence[float]) -> Rate:
    low, median, high = quartiles(samples)
    return Rate(median=median, low=low, high=high)


def failed(side: str, error: Error) -> Result:
    """Return the result of a side that failed in a cell, from what the program beside the wheel says of it."""
    text = " ".join(str(error.get("text", "")).split())
    kind = str(error.get("type", ""))
    told = text if kind in ("Crash", "Hang") else f"{kind}: {text}"
    short = told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"
    return Result(side=side, status=_status(kind, bool(error.get("sticky"))), text=short)


def _status(kind: str, sticky: bool) -> Status:
    if kind == "Hang":
        return "hung"
    if kind == "OutOfMemoryError":
        return "memory"
    return "crashed" if kind == "Crash" or sticky else "refused"


def timed(
    side: str, cell: Cell, samples: Sequence[float], calls: int, host_us: float, accuracy: AccuracyFound
) -> Result:
    """Return the result of a side that was timed: rates by its median. Shares come with ``with_shares``."""
    low, median, high = quartiles(samples)
    return Result(
        side=side,
        status="timed",
        samples=tuple(samples),
        calls=calls,
        ms=median,
        low_ms=low,
        high_ms=high,
        tflops=cell.flop / median / 1e9,
        gbs=cell.bytes / median / 1e6,
        host_us=host_us,
        accuracy=Accuracy.model_validate(dict(accuracy)),
    )


def with_shares(cell: Cell, reached: Rates) -> Cell:
    """Return a cell whose results say what share of the GPU's measured rates they reach."""
    results = (
        result.model_copy(
            update={
                "matrix_share": result.tflops / reached.matrix.median,
                "memory_share": result.gbs / reached.memory.median,
            }
        )
        for result in cell.results
    )
    return cell.model_copy(update={"results": tuple(results)})


def against(a: str, b: str, cells: Sequence[Cell]) -> Against:
    """Compare one side with another in each cell where both were timed, and in all of these together."""
    pairs = [pair for cell in cells if (pair := _pair(a, b, cell))]
    if not pairs:
        return Against(a=a, b=b, cells=())
    # The geometric mean over the cells, round by round: one long cell must not drown the others.
    one, other = (
        [statistics.geometric_mean(samples) for samples in zip(*(pair[at] for pair in pairs), strict=True)]
        for at in (1, 2)
    )
    return Against(a=a, b=b, cells=tuple(_verdict(*pair) for pair in pairs), overall=_verdict("", one, other))


def _pair(a: str, b: str, cell: Cell) -> tuple[str, Sequence[float], Sequence[float]] | None:
    found = {result.side: result.samples for result in cell.results if result.status == "timed"}
    return (cell.name, found[a], found[b]) if a in found and b in found else None


def _verdict(cell: str, a: Sequence[float], b: Sequence[float]) -> Verdict:
    ratio, low, high, confidence = ratio_interval(a, b)
    said = outcome(ratio, low, high, confidence)
    return Verdict(cell=cell, outcome=said, ratio=ratio, low=low, high=high, confidence=confidence)

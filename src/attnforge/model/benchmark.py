"""What a benchmark says: what was timed, on what, how fast, how right."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attnforge.errors import UncheckedError, WheelError
from attnforge.model.base import Value

Kind = Literal["prefill", "decode", "diffusion", "training"]
Dtype = Literal["bf16", "fp16"]
# timed: there are figures; refused: it raised; memory: the GPU's memory did not do; crashed: its process died or lost
# the GPU; hung: no answer in time.
Status = Literal["timed", "refused", "memory", "crashed", "hung"]
Outcome = Literal["same", "faster", "slower", "unclear"]


class Shape(Value):
    """One call of attention: q of (batch, rows, heads, head_dim), k and v of (batch, columns, kv_heads, head_dim).

    ``of`` says who runs it, ``link`` where its numbers are from; ``quick`` shapes are in the quick grid.
    """

    name: str
    kind: Kind
    batch: int = Field(gt=0)
    rows: int = Field(gt=0)
    columns: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    causal: bool
    quick: bool = False
    of: str = ""
    link: str = ""


class Gpu(Value):
    """The GPU that all was timed on. ``memory_bytes`` is all of its memory."""

    name: str
    capability: str
    memory_bytes: int


class Rate(Value):
    """What this GPU was measured to reach: the median, and the quartiles as ``low`` and ``high``."""

    median: float
    low: float
    high: float


class Rates(Value):
    """The yardsticks: ``matrix``, a bf16 product, in TFLOP/s; ``memory``, a large copy, in GB/s read and written."""

    matrix: Rate
    memory: Rate


class Side(Value):
    """One thing that is timed: a wheel's attention, or one backend of PyTorch's.

    ``name`` is what it is called in the report; ``wheel`` a file name, "" for PyTorch's own, ``sha256`` of that file.
    ``error`` says why nothing of it could be timed, "" where it could be loaded.
    """

    name: str
    package: str
    kernel: str = ""
    version: str = ""
    wheel: str = ""
    sha256: str = ""
    python: str = ""
    torch: str = ""
    error: str = ""


class Accuracy(Value):
    """How far results are from attention in float32: see ``ongpu/reference.py``. ``right`` says whether they serve."""

    cosine: float
    mean_relative: float
    largest_error: float
    not_finite: int
    right: bool


class Result(Value):
    """One side in one cell.

    ``samples`` are milliseconds of a call, one for each round, each the mean of ``calls`` calls; ``ms`` is their
    median, ``low_ms`` and ``high_ms`` their quartiles. ``tflops`` is 10^12 floating-point operations a second,
    ``matrix_share`` that over the matrix rate; ``gbs`` is 10^9 bytes a second, ``memory_share`` that over the memory
    rate. ``host_us`` are the microseconds that the CPU spends to issue a call. All are 0 where nothing was timed, and
    ``text`` says why.
    """

    side: str
    status: Status
    text: str = ""
    samples: tuple[float, ...] = ()
    calls: int = 0
    ms: float = 0.0
    low_ms: float = 0.0
    high_ms: float = 0.0
    tflops: float = 0.0
    matrix_share: float = 0.0
    gbs: float = 0.0
    memory_share: float = 0.0
    host_us: float = 0.0
    accuracy: Accuracy | None = None

    @property
    def is_right(self) -> bool:
        """Whether it was timed and its results serve."""
        return self.status == "timed" and self.accuracy is not None and self.accuracy.right


class Cell(Value):
    """A shape in one direction, and each side in it. ``flop`` and ``bytes`` are those of one call, by the formula."""

    name: str
    shape: Shape
    backward: bool = False
    flop: float
    bytes: float
    results: tuple[Result, ...] = ()

    @property
    def fastest(self) -> Result | None:
        """The fastest of those whose results serve."""
        return min((result for result in self.results if result.is_right), key=lambda result: result.ms, default=None)


class Verdict(Value):
    """The time of ``b`` over that of ``a``: ``ratio``, with its interval at this ``confidence``.

    ``faster`` and ``slower`` are said of ``b``. ``cell`` "" is all cells together.
    """

    cell: str
    outcome: Outcome
    ratio: float
    low: float
    high: float
    confidence: float


class Against(Value):
    """A comparison of two wheels of one package, by the names of their sides."""

    a: str
    b: str
    cells: tuple[Verdict, ...]
    overall: Verdict | None = None


class BenchReport(Value):
    """A benchmark. ``date`` is UTC in ISO 8601; ``seconds`` the wall time of the whole; ``grid`` which shapes."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    builder: str
    date: str
    seconds: float
    gpu: Gpu
    cuda: str
    driver: str
    grid: str
    dtype: Dtype
    rounds: int
    rates: Rates
    sides: tuple[Side, ...]
    cells: tuple[Cell, ...]
    against: Against | None = None

    @property
    def exit_code(self) -> int:
        """5 where a wheel can't be loaded, crashes, hangs or computes what is wrong; 6 where one was never timed."""
        wheels = {side.name: side for side in self.sides if side.wheel}
        results = [result for cell in self.cells for result in cell.results if result.side in wheels]
        if any(side.error for side in wheels.values()) or any(_is_bad(result) for result in results):
            return WheelError.exit_code
        timed = {result.side for result in results if result.status == "timed"}
        return 0 if timed == set(wheels) else UncheckedError.exit_code


def _is_bad(result: Result) -> bool:
    return result.status in ("crashed", "hung") or (result.status == "timed" and not result.is_right)

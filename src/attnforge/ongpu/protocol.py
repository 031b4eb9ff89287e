"""The messages between attnforge and the program beside the wheel: one type for both sides of each line of JSON.

Both sides import this module, so it needs only Python 3.9. Figures are those of ``reference.figures``, times are in the
unit that the key names.
"""

from __future__ import annotations

from typing import Literal, TypedDict, final


@final
class Error(TypedDict, total=False):
    """How a request failed. ``text`` is the first 2,000 characters of the message, ``trace`` the last 4,000 of stderr.

    ``type`` is the exception's class, or ``Crash`` (with ``code``, the exit code or the negative signal) or ``Hang``.
    ``sticky``: the process, or its GPU context, is lost.
    """

    type: str
    text: str
    trace: str
    sticky: bool
    code: int


@final
class Failed(TypedDict):
    """The answer to a request that failed."""

    error: Error


# --- about.py


@final
class AboutRequest(TypedDict, total=False):
    """A request to about.py; each key is for the ``do`` that about.py names with it."""

    do: Literal["place", "look", "load", "signatures"]
    search: list[str]
    modules: list[str]
    module: str
    names: list[str]


@final
class GpuFound(TypedDict):
    """A GPU: its compute ``capability`` (9.0) and ``memory`` in bytes."""

    name: str
    capability: str
    memory: int


@final
class Look(TypedDict):
    """The interpreter and its PyTorch. ``site`` is the folder that has torch; ``gpus`` is empty where it sees none."""

    python: str
    torch: str
    cuda: str
    site: str
    gpus: list[GpuFound]


@final
class Loaded(TypedDict):
    """The files of imported modules."""

    files: dict[str, str]


@final
class Signatures(TypedDict):
    """The parameters of functions."""

    functions: dict[str, list[str]]


# --- checks.py


class CaseToRun(TypedDict):
    """A ``model.check.Case`` as JSON: the fields that calls depend on."""

    name: str
    call: str
    dtype: str
    head_dim: int
    batch: int
    rows: int
    columns: int
    heads: int
    kv_heads: int
    lengths: list[list[int]]
    causal: bool
    window: list[int]
    softcap: float
    alibi: bool
    dropout: float
    deterministic: bool
    layout: str
    strided: str
    kernel: str
    mode: str
    left_out: str
    refused: str


@final
class CheckRequest(TypedDict, total=False):
    """``open`` a package, or run a ``case`` of it by the ``rule`` of its results."""

    do: Literal["open", "case"]
    package: str
    device: str
    case: CaseToRun
    rule: str


@final
class Opened(TypedDict):
    """What an imported package has: see ``calls.Package``."""

    version: str
    takes: list[str]
    kernels: list[str]
    main: str
    layouts: list[str]
    varlen: bool
    varlen_takes: list[str]
    cache: bool
    cache_takes: list[str]


@final
class Measure(TypedDict, total=False):
    """How far a result is from what is expected: the figures of ``reference.figures`` and the verdict of ``judge``.

    ``shape`` and ``expected_shape`` are there only where they differ.
    """

    largest_error: float
    cosine: float
    mean_relative: float
    not_finite: int
    ok: bool
    bound: float
    plain_error: float
    shape: list[int]
    expected_shape: list[int]


@final
class CheckAnswer(TypedDict, total=False):
    """What a case gave. ``raised`` is the exception of a call that has to raise, None where it did not."""

    measures: list[Measure]
    seconds: float
    raised: str | None
    skipped: str
    wrong: str
    repeats: bool
    output: str
    changed_inputs: list[str]
    figures: dict[str, float]


# --- timing.py


class ShapeToTime(TypedDict):
    """A ``model.benchmark.Shape`` as JSON: the fields that a call depends on."""

    kind: str
    batch: int
    rows: int
    columns: int
    heads: int
    kv_heads: int
    head_dim: int
    causal: bool


class CellToTime(TypedDict):
    """A ``model.benchmark.Cell`` as JSON."""

    shape: ShapeToTime
    backward: bool


@final
class TimingRequest(TypedDict, total=False):
    """A request to timing.py; ``calls`` is how many to time in a row."""

    do: Literal["open", "prepare", "time", "rates", "clear"]
    package: str
    kernel: str
    device: str
    dtype: str
    cell: CellToTime
    calls: int


@final
class AccuracyFound(TypedDict):
    """A measure, as a report of a benchmark has it."""

    largest_error: float
    cosine: float
    mean_relative: float
    not_finite: int
    right: bool


class Timing(TypedDict):
    """The mean of some calls: milliseconds of one, and the microseconds that the CPU took to issue it."""

    ms: float
    host_us: float


@final
class Prepared(Timing):
    """A prepared call. ``sets`` is how many sets of inputs it rotates through."""

    sets: int
    accuracy: AccuracyFound


@final
class RatesFound(TypedDict):
    """What the GPU reaches: TFLOP/s of a bf16 product, GB/s of a copy."""

    matrix: float
    memory: float

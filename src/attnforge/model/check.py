"""The cases of a check of a wheel, and its report."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from attnforge.errors import UncheckedError, WheelError
from attnforge.model.audit import Verdict
from attnforge.model.base import Value
from attnforge.model.finding import Finding

Call = Literal["smoke", "dense", "varlen", "cache", "gradients", "dropout", "compile", "graph", "streams", "devices"]
CacheMode = Literal["", "lengths", "splits", "paged", "append", "index"]
Status = Literal["passed", "failed", "refused", "raised", "skipped", "not-run"]


class Case(Value):
    """One call of a package, and the result that it has to give.

    ``topic`` is what the case is about, as people call it (softcap, paged). Tensors are q of (batch, rows, heads,
    head_dim), k and v of (batch, columns, kv_heads, head_dim) in ``dtype`` (fp16, bf16, fp8). ``lengths`` are (rows,
    columns) of each sequence of a varlen call. ``window`` is (left, right), -1 for no limit. ``strided`` says how
    inputs are in memory: "" dense, ``packed`` as parts of one tensor, ``transposed`` as (batch, heads, rows,
    head_dim). ``kernel`` is a function by upstream's name, "" for the package's main one. Where ``left_out`` names a
    feature, the call has to raise, with one of each of ``words`` in its message. ``refused`` is in upstream's own
    message for a call that no build serves, which has to raise it. ``promised`` is false where upstream does not say
    that it works. ``fault`` is the id of something that upstream's own release computes wrong in such a
    call, and ``least_cosine`` how near it still comes.
    """

    name: str
    topic: str
    call: Call
    dtype: str
    head_dim: int
    batch: int = 1
    rows: int = 128
    columns: int = 128
    heads: int = 4
    kv_heads: int = 4
    lengths: tuple[tuple[int, int], ...] = ()
    causal: bool = False
    window: tuple[int, int] = (-1, -1)
    softcap: float = 0.0
    alibi: bool = False
    dropout: float = 0.0
    deterministic: bool = False
    layout: str = "NHD"
    strided: str = ""
    kernel: str = ""
    mode: CacheMode = ""
    left_out: str = ""
    words: tuple[tuple[str, ...], ...] = ()
    refused: str = ""
    promised: bool = True
    fault: str = ""
    least_cosine: float = 0.0


class CaseResult(Value):
    """The result of a case.

    ``status``: passed; failed, with the ``code`` of what is wrong (and the ``fault`` of upstream's own release that it
    is, if it is one); refused, a function that is not for this GPU said so; raised, as a call for something that was
    left out has to; skipped, this machine can't do it; not-run, the check was given up before. ``said`` is what was
    seen, in a line. ``figures``: the worst of ``largest_error`` with the ``bound`` it is compared with and the
    ``plain_error`` of plain PyTorch in the same dtype, ``cosine`` similarity, ``mean_relative`` error, ``not_finite``
    elements, and of dropout ``mean``, ``variance`` and ``expected_variance``. ``seconds`` is wall time.
    """

    name: str
    topic: str
    dtype: str
    head_dim: int
    status: Status
    code: str = ""
    said: str = ""
    figures: dict[str, float] = Field(default_factory=dict)
    changed_inputs: tuple[str, ...] = ()
    promised: bool = True
    fault: str = ""
    seconds: float = 0.0


class GpuSeen(Value):
    """A GPU as torch names it, with its compute ``capability`` (9.0) and ``memory`` in bytes."""

    name: str
    capability: str
    memory: int


class CheckReport(Value):
    """The report of a check of a wheel.

    ``python``, ``torch`` and ``cuda`` are those that it was tried with, empty where none could be started. ``smoke``
    is the line that users know: ``output = torch.Size([2, 4, 128, 64])``. ``quick`` and ``only`` (topics) say that
    less was asked for than there is. ``seconds`` is wall time.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    wheel: str
    sha256: str
    package: str
    version: str
    python: str = ""
    torch: str = ""
    cuda: str = ""
    gpus: tuple[GpuSeen, ...] = ()
    quick: bool = False
    only: tuple[str, ...] = ()
    smoke: str = ""
    coverage: dict[str, Any] | None = None
    results: tuple[CaseResult, ...] = ()
    findings: tuple[Finding, ...]
    verdict: Verdict
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 for good, 5 for bad, 6 for what could not be checked."""
        return {"good": 0, "bad": WheelError.exit_code, "unchecked": UncheckedError.exit_code}[self.verdict]

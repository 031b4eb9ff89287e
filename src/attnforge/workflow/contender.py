"""A side of a benchmark in its process: it prepares a call in a cell and is timed, once in each round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attnforge.bench import report
from attnforge.model.benchmark import Cell, Dtype, Result, Side
from attnforge.ongpu.protocol import Failed, Prepared
from attnforge.workflow.child import Child

FIRST_SECONDS = 240.0
"""The longest that a first call may take, which may compile kernels (Triton)."""

ANSWER_SECONDS = 60.0
"""The longest that any other answer may take."""

# Calls that may be in flight at once: the GPU's queue holds a thousand kernels, and a call may be several.
_MOST_CALLS = 100


@dataclass(frozen=True)
class Timing:
    """How a side is timed: with which dtype, on which device, for how many seconds in a round."""

    dtype: Dtype
    device: str
    seconds: float


@dataclass
class Contender:
    """A side, the process that it is in, and what it did in the present cell.

    ``samples`` are milliseconds of a call, one for each round; ``failure`` is its result where it failed.
    """

    side: Side
    child: Child
    cell: Cell = field(init=False)
    how: Timing = field(init=False)
    first: Prepared | None = None
    samples: list[float] = field(default_factory=list)
    calls: int = 0
    failure: Result | None = None

    def enter(self, cell: Cell, how: Timing) -> None:
        """Prepare a call in a cell."""
        self.cell, self.how = cell, how
        self.samples, self.calls, self.failure, self.first = [], 0, None, None
        self._prepare()

    def sample(self) -> None:
        """Time the side once. It prepares again where its process was restarted, for another side in that process."""
        if self.failure or self.first is None:
            return
        expected = max(self.first["ms"], 1e-4)
        self.calls = self.calls or min(_MOST_CALLS, max(1, round(1e3 * self.how.seconds / expected)))
        patience = ANSWER_SECONDS + 20 * self.calls * expected / 1e3
        answer = self._asked("time", patience, {"calls": self.calls})
        if answer.get("error", {}).get("type") == "NotPreparedError":
            self.failure = None
            self._prepare()
            answer = {} if self.failure else self._asked("time", patience, {"calls": self.calls})
        if "ms" in answer:
            self.samples.append(answer["ms"])

    def result(self) -> Result:
        """Return the result in the cell."""
        if self.failure or self.first is None:
            assert self.failure is not None
            return self.failure
        host_us, accuracy = self.first["host_us"], self.first["accuracy"]
        return report.timed(self.side.name, self.cell, self.samples, self.calls, host_us, accuracy)

    def _prepare(self) -> None:
        asked = {"cell": self.cell.to_json(), "dtype": self.how.dtype}
        answer: Prepared | Failed = self._asked("prepare", FIRST_SECONDS, asked)
        if "error" not in answer:
            self.first = answer

    def _asked(self, what: str, patience: float, more: Mapping[str, object]) -> Any:
        """Ask the process; a failure is the side's result in this cell."""
        request = {"do": what, "package": self.side.package, "kernel": self.side.kernel, "device": self.how.device}
        answer = self.child.ask("timing", {**request, **more}, patience)
        if "error" in answer:
            self.failure = report.failed(self.side.name, answer["error"])
        return answer

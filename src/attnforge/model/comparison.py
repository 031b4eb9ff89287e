"""What a comparison of two wheels says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from attnforge.errors import UncheckedError, WheelError
from attnforge.model.base import Value

Sameness = Literal["same", "different"]
ComparisonVerdict = Literal["same", "different", "unchecked"]
Pair = tuple[int, int]


class FunctionDifference(Value):
    """A function that both wheels have, and that is not the same in them.

    ``function`` is readable where it could be demangled, ``symbol`` as the first wheel has it. ``code`` is the machine
    code with what is patched into it, ``constants`` the constant banks that it reads, ``attributes`` how it is launched
    (parameters, barriers, limits). Numbers are (first wheel, second wheel): ``registers`` of a thread; bytes of
    ``shared`` memory of a block, of the function's own ``constant`` banks, of a thread's stack ``frame`` (spills
    included) and of the ``stack`` that it needs with those that it calls.
    """

    function: str
    symbol: str
    code: Sameness
    constants: Sameness
    attributes: Sameness
    registers: Pair
    shared: Pair
    constant: Pair
    frame: Pair
    stack: Pair


class ModuleComparison(Value):
    """The machine code of a module, by its import name, for one architecture (``sm_90a``).

    ``same`` counts the functions that are the same in both, ``only_a`` and ``only_b`` are those of only one wheel.
    """

    path: str
    architecture: str
    same: int
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    different: tuple[FunctionDifference, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.different)


class Comparison(Value):
    """Whether two wheels, ``a`` and ``b``, have the same functions for GPUs with the same machine code.

    ``uncompared`` says what was not compared: PTX, and what can't be read. The verdict is ``unchecked`` where a wheel
    has no machine code, and where all that could be read is the same but something could not be read.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    a: str
    b: str
    modules: tuple[ModuleComparison, ...]
    uncompared: tuple[str, ...] = ()
    verdict: ComparisonVerdict

    @property
    def exit_code(self) -> int:
        """0 for same, 5 for different, 6 for what could not be compared."""
        return {"same": 0, "different": WheelError.exit_code, "unchecked": UncheckedError.exit_code}[self.verdict]

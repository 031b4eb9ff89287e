"""Answers upstream's calls of ninja before the kernels are compiled, so that link and packaging are tried early.

In a rehearsal a call is answered when its host units are compiled. A missing kernel's object is replaced by an empty
one, and the kernels go on compiling. When upstream's build asks for the same objects again, it gets all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from attnforge.compile.graph.commands import redirected
from attnforge.compile.reuse.objects import READ_BY_COMPILERS
from attnforge.compile.run.work import Batch, Task, is_host
from attnforge.model.graph import CompileGraph, Language, Unit

# A build that has less to compile shows its failures soon enough, and a rehearsal runs upstream's setup.py once more,
# which takes 5 to 10 seconds. Wall time of the kernels that are left, as predicted.
LEAST_SECONDS = 60.0


class Rehearsal:
    """Which calls were served while it was on. The caller holds the engine's lock."""

    def __init__(self) -> None:
        """Begin without one: calls are answered when all objects are there."""
        self.on = False
        self._batches: list[Batch] = []

    @property
    def took_place(self) -> bool:
        """Whether a call was answered with objects missing."""
        return any(batch.rehearsed for batch in self._batches)

    @property
    def repeated(self) -> bool:
        """Whether each call that was answered so has come again."""
        return not any(batch.rehearsed and not batch.resumed for batch in self._batches)

    def add(self, batch: Batch) -> None:
        """Remember a call that is served while the rehearsal is on: upstream's next run makes it again."""
        if self.on:
            self._batches.append(batch)

    def find(self, received: CompileGraph, environment: Mapping[str, str]) -> Batch | None:
        """Return the call that asked for the very same and was not made again yet, None if there is none."""
        fitting = (batch for batch in self._batches if not batch.resumed)
        return next((batch for batch in fitting if _asks_the_same(batch, received, environment)), None)

    def superseded(self, outputs: Collection[str]) -> list[Batch]:
        """Return the calls of the rehearsal that made any of these objects in another way; they are dropped here.

        None while it goes on: then two calls may share an object, and both are made again.
        """
        found = [] if self.on else [batch for batch in self._batches if not batch.resumed and _makes(batch, outputs)]
        self._batches = [batch for batch in self._batches if batch not in found]
        return found


def can_wait(tasks: Iterable[Task]) -> bool:
    """Say whether upstream's build can go on while these units are made.

    Units that read one another's objects, or whose commands can't be told to write elsewhere, need upstream's folder,
    and a link may be using it.
    """
    units = [unit for task in tasks for unit in (task.work.unit, *task.work.unit.fallback)]
    return all(_is_apart(unit) for unit in units) and not all(map(is_host, units))


def _is_apart(unit: Unit) -> bool:
    simple = unit.language in (Language.CUDA, Language.CXX) and not unit.needs
    return simple and redirected(unit, "", "") is not None


def _asks_the_same(batch: Batch, received: CompileGraph, environment: Mapping[str, str]) -> bool:
    same = batch.received == received and _read_by_compilers(batch.environment) == _read_by_compilers(environment)
    # What another command made is not kept, and has to be made again.
    return same and not any(unit.language is Language.OTHER for unit in batch.graph.units)


def _makes(batch: Batch, outputs: Collection[str]) -> bool:
    return any(unit.output in outputs for unit in batch.received.units)


def _read_by_compilers(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name == "PATH" or READ_BY_COMPILERS.fullmatch(name)}

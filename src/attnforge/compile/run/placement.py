"""Puts objects that need no compiler where upstream's link expects them: stored, cached and empty ones."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import threading
from pathlib import Path

from attnforge.compile.nvcc.hostcompiler import host_compiler
from attnforge.compile.reuse import objects
from attnforge.compile.reuse.objects import Cost, ObjectStore, Stored
from attnforge.compile.reuse.reuse import Reuse
from attnforge.compile.run.executor import Executor, Run
from attnforge.compile.run.reporter import Reporter
from attnforge.compile.run.summary import How
from attnforge.compile.run.work import Batch, Work, seen
from attnforge.errors import BuildError, HostError
from attnforge.model.graph import Language, Unit

NOTHING = Cost(0.0, 0.0, 0)


class Placement:
    """Finds objects in the plan's folder and in the cache, and places them. For many threads at once.

    A lock is held while the empty object is made, so that it is made once. All other files have a name for each unit,
    and a unit is made by one thread at a time.
    """

    def __init__(self, store: ObjectStore, reuse: Reuse, executor: Executor, folder: Path, reporter: Reporter) -> None:
        """Use ``store`` and the cache of ``reuse``. The empty object is made in ``folder``."""
        self._store = store
        self._reuse = reuse
        self._executor = executor
        self._folder = folder
        self._reporter = reporter
        self._making_empty = threading.Lock()

    # --- objects that are available

    def find(self, work: Work) -> tuple[How, Cost] | None:
        """Place a unit's object from the plan's folder or from the cache. Return which, and what it took to make it."""
        work.key = self._key(work.unit, work.batch)
        stored = self._store.find(work.key) if work.unit.language is not Language.OTHER else None
        if stored is not None:
            _put(work.unit, work.batch, stored)
            work.reads = _reads(stored)
            return "reused", _cost(stored)
        found = self._reuse.find_unit(work)
        if found is None:
            return None
        work.folder.mkdir(parents=True, exist_ok=True)
        work.made.write_bytes(found.object)
        work.reads = found.reads
        self._keep(work, found.cost)
        return "cached", found.cost

    def keep(self, work: Work) -> None:
        """Store the object that was made of a unit, and place it."""
        self._reuse.keep_unit(work)
        work.reads = self._reuse.reads(work)
        self._keep(work, work.spent)

    def _keep(self, work: Work, cost: Cost) -> None:
        _put(work.unit, work.batch, self._store.keep(work.key, work.made, work.unit.argv, cost, work.reads))

    def take_stored(self, unit: Unit, batch: Batch) -> bool:
        """Place a unit's object, or all of its fallback's, from the plan's folder. Say whether they were there."""
        found = self._stored(unit, batch)
        for one, stored in found or ():
            _put(one, batch, stored)
            self._reporter.made(one, batch, "reused", _cost(stored), _reads(stored))
        return found is not None

    def _stored(self, unit: Unit, batch: Batch) -> list[tuple[Unit, Stored]] | None:
        stored = self._store.find(self._key(unit, batch)) if unit.language is not Language.OTHER else None
        if stored is not None:
            return [(unit, stored)]
        parts = [self._stored(other, batch) for other in unit.fallback]
        return [pair for part in parts for pair in part or ()] if parts and None not in parts else None

    def _key(self, unit: Unit, batch: Batch) -> str:
        program = shutil.which(unit.argv[0], path=batch.environment.get("PATH", os.defpath)) or unit.argv[0]
        try:
            return objects.unit_key(unit, batch.headers, program, seen(unit, batch))
        except FileNotFoundError as error:
            raise BuildError(
                f"{unit.name}: the source {error.filename} is missing",
                why="upstream's build named a file that is not there",
                hint="a source archive may lack files, and a clone's submodule may be empty: build from a whole clone"
                " (attnforge build NAME --source git+URL@TAG, or git submodule update --init in a folder)",
            ) from error

    # --- objects without content

    def take_empty(self, batch: Batch) -> None:
        """Place an object without content for each unit of a call that is left out or part of another one."""
        merged = {output for unit in batch.graph.units for output in unit.members}
        for unit in batch.graph.units:
            if unit.empty:
                _put(unit, batch, self._empty(batch))
                self._reporter.made(unit, batch, "merged" if unit.output in merged else "empty", NOTHING)

    def answer(self, batch: Batch) -> None:
        """Place all objects of a rehearsed call, with empty ones for those that are not there.

        None was placed before: a link may have been reading there.
        """
        for unit in batch.graph.units:
            objects.place(batch.objects.get(unit.output) or self._empty(batch).path, Path(unit.output))

    def _empty(self, batch: Batch) -> Stored:
        """Return an object without content, made once by the host compiler: it knows this machine's ELF flags."""
        compiler = host_compiler(batch.graph, batch.environment)
        key = hashlib.sha256(b"empty\0" + os.fsencode(compiler)).hexdigest()
        with self._making_empty:
            return self._store.find(key) or self._make_empty(batch, compiler, key)

    def _make_empty(self, batch: Batch, compiler: str, key: str) -> Stored:
        work = self._folder / "empty"
        work.mkdir(parents=True, exist_ok=True)
        made = work / "empty.o"
        argv = (compiler, "-x", "c++", "-fPIC", "-c", os.devnull, "-o", str(made))
        ended = self._executor.run(Run(argv, str(work), batch.environment, work / "log"))
        if ended.code != 0 or not objects.is_filled(made):
            raise HostError(
                "the host compiler can't compile an empty file",
                why=(work / "log").read_text(encoding="utf-8", errors="replace").strip(),
                hint=f"fix it until this works: {shlex.join((*argv[:-1], '/tmp/empty.o'))}",
            )
        return self._store.keep(key, made, argv, Cost(ended.seconds, ended.cpu_seconds, ended.peak_bytes))


def _put(unit: Unit, batch: Batch, stored: Stored) -> None:
    """Put an object where the link expects it. In a rehearsal that is done when the call is answered, not before and
    not after: a link may be reading there, and what it makes is thrown away.
    """
    batch.objects[unit.output] = stored.path
    if not batch.rehearsed:
        objects.place(stored.path, Path(unit.output))


def _cost(stored: Stored) -> Cost:
    record = stored.record
    return Cost(record.seconds, record.cpu_seconds, record.peak_bytes)


def _reads(stored: Stored) -> frozenset[str] | None:
    return None if stored.record.reads is None else frozenset(stored.record.reads)

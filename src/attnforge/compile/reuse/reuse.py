"""Takes outputs of steps, and whole objects, from the cache across plans."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from attnforge.compile.nvcc.parts import joined_outputs
from attnforge.compile.nvcc.prefixes import Prefixes
from attnforge.compile.nvcc.steps import Step, Tool, outputs
from attnforge.compile.reuse import keys
from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.reuse.heap import trimmed
from attnforge.compile.reuse.making import Making
from attnforge.compile.reuse.reads import folders_of
from attnforge.compile.reuse.recall import Found, Recall, dependencies
from attnforge.compile.reuse.shared import Sharing
from attnforge.model.graph import Language

# How many threads hold whole files in memory at once to hash and compress them: PTX has tens of megabytes, and
# with a thread for each of 32 slots that was over a gigabyte. Most of that work is done by one thread at a time anyway.
_AT_ONCE = 3


class Reuse:
    """Looks things up in a cache and keeps them there; without a cache it does neither. For many threads at once."""

    def __init__(
        self,
        cache: StepCache | None = None,
        prefixes: Prefixes | None = None,
        sharing: Sharing | None = None,
        *,
        whole: bool = True,
    ) -> None:
        """Use ``cache``; ``prefixes`` are the folders that differ from machine to machine, with their names.

        ``sharing`` are the proofs by which architectures share PTX. Without ``whole``, objects of nvcc are made
        of the outputs of its steps only.
        """
        self.prefixes = prefixes or Prefixes({})
        self._cache = cache
        self._sharing = sharing or Sharing()
        self._recall = Recall(cache, self.prefixes) if cache else None
        self._recalled = frozenset({Language.CUDA, Language.CXX} if whole else {Language.CXX})
        self._files = threading.BoundedSemaphore(_AT_ONCE)

    # --- steps

    def settle(self, step: Step) -> None:
        """Take this machine's folders out of a step's output, so that the next step does not see them."""
        if step.tool is Tool.PREPROCESS:
            self.prefixes.settle_file(Path(step.writes[0]))

    def find_step(self, work: Making, step: Step) -> bool:
        """Say whether a step's outputs were cached; if so, they are now where it would have written them."""
        key = keys.step_key(step, work.environment) if self._cache else None
        if self._cache is None or key is None:
            return False
        found, wanted = self._cache.get(key), outputs(step)
        if found is None or found.keys() != wanted.keys():
            work.keys[step.label] = key
            return False
        for role, path in wanted.items():
            Path(path).write_bytes(found[role])
        return True

    def share_step(self, work: Making, step: Step) -> None:
        """Write what a cicc would write from another architecture's PTX. UnprovenError if that is not proven.

        The cache does not get it: there is what programs have written.
        """
        work.keys.pop(step.label, None)
        with self._files, trimmed():
            ptx = self._sharing.ptx(work, step, self.prefixes)
            Path(outputs(step)["output"]).write_bytes(ptx)

    def join_step(self, work: Making, step: Step) -> None:
        """Write what a cicc would write from what its parts wrote. NotWholeError if that is not certain.

        The cache does not get it, as above.
        """
        work.keys.pop(step.label, None)
        with self._files, trimmed():
            for path, content in joined_outputs(work.unit, work.steps, step).items():
                Path(path).write_bytes(content)

    def keep_step(self, work: Making, step: Step) -> None:
        """Keep what a step has made, if it is one that is looked up."""
        key = work.keys.pop(step.label, None)
        if self._cache is not None and key is not None:
            with self._files, trimmed():
                self._cache.put(key, {role: Path(path).read_bytes() for role, path in outputs(step).items()})

    # --- objects

    def observed(self, work: Making, argv: Sequence[str]) -> tuple[str, ...]:
        """Return a host compiler's command so that it writes which headers it reads, those of the system too."""
        if self._recall is None or work.unit.language is not Language.CXX:
            return tuple(argv)
        kept = tuple("-MD" if word == "-MMD" else word for word in argv)
        if "-MD" in kept and "-MF" in kept:
            return kept
        return (*kept, "-MD", "-MF", str(_depfile(work)))

    def find_unit(self, work: Making) -> Found | None:
        """Return a unit's object from the cache; None if it is not there, or made of something else."""
        recall = self._recall_for(work)
        return recall.find(work.unit, work.files, work.seen) if recall else None

    def keep_unit(self, work: Making) -> None:
        """Keep an object that was made, with the headers that it was made of."""
        recall, depfiles = self._recall_for(work), _depfiles(work)
        if recall is not None and depfiles:
            with self._files, trimmed():
                recall.keep(work.unit, work.files, work.seen, depfiles, work.made.read_bytes(), work.spent)

    def reads(self, work: Making) -> frozenset[str] | None:
        """Return the folders that a compile which has ended read files of; None if it did not say so.

        Without a cache compilers are not asked for headers of the system, so nothing is known.
        """
        depfiles = _depfiles(work)
        if self._recall_for(work) is None or not depfiles:
            return None
        return folders_of(self.prefixes.name(path) for path in dependencies(depfiles, work.unit.cwd))

    def _recall_for(self, work: Making) -> Recall | None:
        return self._recall if work.unit.language in self._recalled else None


def _depfiles(work: Making) -> list[Path]:
    written = [step.depfile for step in work.steps.values() if step.depfile] or [str(_depfile(work))]
    return [Path(name) for name in written if Path(name).exists()]


def _depfile(work: Making) -> Path:
    return work.made.with_name(work.made.name + ".d")

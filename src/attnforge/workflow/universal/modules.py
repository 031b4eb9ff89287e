"""The modules of further pairs: upstream's build with the kernels left out, for several pairs at once."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

from attnforge.compile.reuse.cache import StepCache
from attnforge.compile.run.engine import Engine
from attnforge.compile.run.summary import Summary
from attnforge.errors import AttnforgeError, BuildError
from attnforge.link.linker import Linker
from attnforge.link.partition import ObjectFile
from attnforge.model.events import Event, JobRetried, Message, Observer, PairFinished
from attnforge.model.universal import Pair, UniversalModule
from attnforge.recipes.adapter import is_generated
from attnforge.workflow.artifacts import Compiled, Parts
from attnforge.workflow.compiling import compile_upstream
from attnforge.workflow.job import Context, Job, Limits
from attnforge.workflow.layout import lay_out_source
from attnforge.workflow.pairs import PairEnvironments, of_pair
from attnforge.workflow.providing import inputs_with
from attnforge.workflow.universal.linking import linker_of
from attnforge.workflow.universal.objects import built_modules

# Memory that compiling host code against PyTorch's headers takes, and some more (1.6 to 1.9 GB were measured).
_HOST_BYTES = 2_500_000_000

Made = tuple[dict[str, bytes], Summary]
"""A pair's modules by their paths in the wheel, and what compiling for it took."""


def add_modules(context: Context) -> Parts:
    """Make the modules of further pairs.

    Several are made at once, as far as processors and memory allow. The first failure ends the others; what they have
    compiled is kept. HostError or BuildError.
    """
    job, parts, pairs = context.job, context.of(Parts), context.job.further
    at_once = pairs_at_once(job.limits, len(pairs), kernels=any(module.own for module in parts.universal.modules))
    running = Running(job.observe)
    shared = replace(job, limits=job.limits.divided(at_once), observe=running.tell)
    work = _PairWork(replace(context, job=shared), running)
    # Which warnings are shown is the process's: a thread that turns them off for its backend would turn them on again
    # for the others.
    with warnings.catch_warnings(), ThreadPoolExecutor(at_once, thread_name_prefix="pair") as pool:
        warnings.simplefilter("ignore")
        made = _all_or_none([pool.submit(work.make, pair) for pair in pairs], running)
    built = {path: data for modules, _ in made for path, data in modules.items()}
    return replace(
        parts,
        universal=parts.universal.model_copy(update={"pairs": job.plan.pairs}),
        built={**parts.built, **built},
        summaries=tuple((pair, summary) for pair, (_, summary) in zip(pairs, made, strict=True)),
    )


def pairs_at_once(limits: Limits, pairs: int, *, kernels: bool) -> int:
    """Return how many pairs are made at once: where they compile kernels, one, which has all the memory."""
    return 1 if kernels else max(1, min(pairs, limits.slots, limits.budget_bytes // _HOST_BYTES))


def _all_or_none(waiting: Sequence[Future[Made]], running: Running) -> list[Made]:
    try:
        for one in as_completed(waiting):
            one.result()
    except BaseException:
        for one in waiting:
            one.cancel()
        running.stop()
        raise
    return [one.result() for one in waiting]


@dataclass
class Running:
    """The engines that are at work, for many threads; these report to the observer one at a time."""

    observe: Observer
    engines: list[Engine] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    stopped: bool = False

    def tell(self, event: Event) -> None:
        """Pass on what concerns more than one pair's compile: each of its jobs is not of interest."""
        if isinstance(event, Message | JobRetried | PairFinished):
            with self.lock:
                self.observe(event)

    def started(self, engine: Engine) -> None:
        """Take note of an engine, to be able to end it."""
        with self.lock:
            self.engines.append(engine)
        if self.stopped:
            engine.close()

    def stop(self) -> None:
        """End every compiler."""
        with self.lock:
            self.stopped = True
            engines = tuple(self.engines)
        for engine in engines:
            engine.close()


@dataclass(frozen=True, slots=True)
class _PairWork:
    """Makes the modules of pairs."""

    context: Context
    running: Running

    def make(self, pair: Pair) -> Made:
        """Make the modules of a pair."""
        job = self.context.job
        folder = job.folder / "pairs" / pair.slug
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            try:
                return self._make(pair, replace(job, plan=job.plan.at(pair), folder=folder, log=log))
            except AttnforgeError as error:
                raise of_pair(pair, error) from error

    def _make(self, pair: Pair, job: Job) -> Made:
        context, parts = self.context, self.context.of(Parts)
        source = lay_out_source(job.machine, job.located, job.folder / "source", _ignore)
        inputs = inputs_with(context, source, context.of(PairEnvironments).of(pair))
        left = [str(source / one) for module in parts.universal.modules for one in module.shared]
        compiled = compile_upstream(
            job, inputs, context.of(StepCache), left=left, answers=parts.answers, started=self.running.started
        )
        made = dict(link_pair(pair, compiled, parts, linker_of(job, inputs), job.folder / "link"))
        for used in ("source", "upstream"):
            shutil.rmtree(job.folder / used, ignore_errors=True)
        job.observe(PairFinished(pair.torch, pair.python, compiled.summary.wall_seconds))
        return made, compiled.summary


def link_pair(
    pair: Pair, compiled: Compiled, parts: Parts, linker: Linker, folder: Path
) -> Iterator[tuple[str, bytes]]:
    """Link the modules of a pair; yield their paths in the wheel and their bytes. BuildError where one is not there."""
    known = {module.name: module for module in parts.universal.modules}
    for one in built_modules(compiled):
        module = known.pop(one.name, None)
        if module is None:
            raise BuildError(f"upstream's build made the module {one.name}, which the wheel does not have")
        # Where a kernel's unit fell back, upstream's graph of a pair has our unit of the library once more.
        own = [part for part in one.objects if part.defines.isdisjoint(module.symbols)]
        check_boundary(own, module, pair)
        paths = [part.path for part in sorted(own, key=lambda part: str(part.path))]
        library = parts.libraries.get(one.name)
        data = linker.module(module.leaf, paths, module.symbols, library, one.data, folder / one.name)
        yield one.place(module, pair), data
    if known:
        raise BuildError(f"upstream's build did not make the module {', '.join(sorted(known))}")


def check_boundary(objects: Sequence[ObjectFile], module: UniversalModule, pair: Pair) -> None:
    """Compare what a pair's host code expects with what the library has: our names say sizes and offsets."""
    defined = frozenset[str]().union(*(one.defines for one in objects))
    wanted = frozenset[str]().union(*(one.wants for one in objects)) - defined
    missing = sorted(name for name in wanted if is_generated(name) and name not in module.symbols)
    if missing and module.library:
        raise BuildError(
            f"the host code of {pair} does not fit the kernels",
            why=f"what crosses is laid out in another way: {missing[0]} is not in {module.library}",
            hint=f"build a separate wheel: --torch {pair.torch} --python {pair.python}, without --universal",
        )


def _ignore(_: str) -> None:
    """Warnings about the source were given when it was laid out for the first time."""

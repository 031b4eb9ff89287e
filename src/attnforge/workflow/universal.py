"""A universal wheel: the kernels library from one build, and a module for each pair of PyTorch and Python.

Upstream's build runs for the first pair as for any wheel, and links what it always does. What comes after is ours, on
the objects that the engine has made: those whose compiles read nothing of PyTorch and Python become the library. For
each further pair upstream's build runs with the units of these left out, so that it compiles its host code alone.
"""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

from attnforge import process
from attnforge.audit.metadata import import_name
from attnforge.compile.reuse.reads import is_neutral
from attnforge.compile.run.engine import Engine
from attnforge.compile.run.summary import Summary
from attnforge.compile.run.work import Product
from attnforge.errors import AttnforgeError, BuildError
from attnforge.link.linker import Library, Linker
from attnforge.link.partition import ObjectFile, Partition, init_name, partition, read_object, together
from attnforge.model.events import Event, JobRetried, Message, Observer, PairFinished
from attnforge.model.graph import Language
from attnforge.model.host import HostCompiler
from attnforge.model.plan import BuildPlan
from attnforge.model.universal import Pair, Universal, UniversalModule, pair_of
from attnforge.package.archive import read_members
from attnforge.provision.toolchain import Toolchain
from attnforge.workflow.answers import answered, other_layout
from attnforge.workflow.compiling import Compiled, Job, Means, compile_upstream
from attnforge.workflow.inputs import Inputs, link_folder
from attnforge.workflow.layout import lay_out_source
from attnforge.workflow.machine import Machine
from attnforge.workflow.pairs import PairEnvironments, of_pair
from attnforge.workflow.sources.kinds import Located

# Memory that compiling host code against PyTorch's headers takes, and some room (1.6 to 1.9 GB were measured).
_HOST_BYTES = 2_500_000_000


@dataclass(frozen=True, slots=True)
class Parts:
    """The modules and libraries of a universal wheel, by their paths in it, and what the wheel says of them.

    ``summaries`` are of the compiles for pairs beside the first.
    """

    universal: Universal
    built: Mapping[str, bytes]
    summaries: tuple[tuple[Pair, Summary], ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """What the pairs of a wheel have in common: where, of what, with which compilers and means."""

    plan: BuildPlan
    located: Located
    environments: PairEnvironments
    toolchain: Toolchain
    compiler: HostCompiler
    folder: Path
    means: Means
    observe: Observer
    log: IO[str]

    @property
    def machine(self) -> Machine:
        """The machine that all this is on."""
        return self.environments.machine

    def linker(self, inputs: Inputs, generated: Path, log: IO[str]) -> Linker:
        """Return what links for one pair."""
        home, site = inputs.toolchain.home, inputs.environment.site_packages
        libraries = [home / "lib64", site / "torch" / "lib", site / "torch.libs", *sorted(site.glob("nvidia/*/lib"))]
        stub, _ = link_folder(self.machine, inputs, generated)
        environ = process.base_environment(self.machine.environ)
        return Linker(inputs.compiler.path, tuple(libraries), stub, environ, log)

    def inputs(self, pair: Pair, source: Path) -> Inputs:
        """Return what a pair's build stands on."""
        return Inputs(source, self.toolchain, self.environments.of(pair), self.compiler)


def prepare(site: Site, source: Path, pairs: Sequence[Pair], answers: Collection[str] | None = None) -> None:
    """Provide what pairs need and see that they go together: what would fail later is told before kernels are compiled.

    Each PyTorch has to give the same ``answers`` to the recipe's questions, by default those of the first. HostError
    or BuildError.
    """
    generated = site.folder / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    wanted = None if answers is None else frozenset(answers)
    site.linker(site.inputs(pairs[0], source), generated, site.log).check(site.folder)
    for pair in pairs:
        inputs, plan = site.inputs(pair, source), site.plan.at(pair)
        given = answered(site.machine, plan, site.located.recipe, inputs, generated)
        if wanted is not None and given != wanted:
            raise of_pair(pair, other_layout(plan))
        wanted = given


# --- the first pair


def share(site: Site, inputs: Inputs, compiled: Compiled) -> tuple[Parts, dict[str, Library]]:
    """Make the libraries, and the first pair's modules, of what upstream's build made for that pair.

    The libraries are by their modules' names. BuildError where objects can't be linked.
    """
    pair = site.plan.pairs[0]
    linker = site.linker(inputs, site.folder / "generated", site.log)
    modules, built, libraries = [], {}, {}
    for name, objects, like in _modules(compiled):
        parts, library = _library(site, linker, name, partition(objects))
        module = _described(name, parts, library, inputs.source)
        modules.append(module)
        if library is not None:
            libraries[name] = library
            built[module.library_path] = library.path.read_bytes()
        own = [one.path for one in parts.own]
        folder = site.folder / "link" / pair.slug / name
        built[_module_path(module, pair, like)] = linker.module(
            module.leaf, own, parts.crossing, library, like.data, folder
        )
    universal = Universal(
        pairs=(pair,), modules=tuple(modules), answers=tuple(sorted(compiled.answers)) if libraries else ()
    )
    return Parts(universal, built), libraries


def _library(site: Site, linker: Linker, name: str, parts: Partition) -> tuple[Partition, Library | None]:
    """Return the library and what stays in the modules; all does where kernels can't be linked by themselves."""
    if not parts.shared or any(one.cuda for one in parts.own):
        _tell_own(site, name, [one for one in parts.own if one.cuda])
    if not parts.shared:
        return parts, None
    try:
        return parts, linker.library(name, parts, site.folder / "link" / "library" / name)
    except BuildError as error:
        told = f"{name} keeps its kernels in each pair's module: {error.what}: {error.why}"
        site.observe(Message("warning", told))
        return together([*parts.shared, *parts.own]), None


def _tell_own(site: Site, name: str, own: Sequence[ObjectFile]) -> None:
    sources = sorted({PurePosixPath(source).name for one in own for source in one.sources})
    if sources:
        why = "since these read headers of PyTorch, or need what does"
        site.observe(Message("info", f"{name} keeps kernels in each pair's module, {why}: {', '.join(sources)}"))


def _described(name: str, parts: Partition, library: Library | None, source: Path) -> UniversalModule:
    shared = [text for one in parts.shared for text in _relative(one.sources, source)]
    own = [text for one in parts.own if one.cuda for text in _relative(one.sources, source)]
    return UniversalModule(
        name=name,
        library=library.path.name if library else "",
        shared=tuple(sorted(shared)),
        own=tuple(sorted(own)),
        symbols=parts.crossing,
    )


def _relative(sources: Iterable[str], source: Path) -> list[str]:
    """Return sources relative to upstream's top; our own generated ones are none of upstream's."""
    return [str(Path(path).relative_to(source)) for path in sources if Path(path).is_relative_to(source)]


# --- further pairs


def add_pairs(site: Site, universal: Universal, pairs: Sequence[Pair], libraries: Mapping[str, Library]) -> Parts:
    """Make the modules of further pairs for a wheel that has ``universal`` and these libraries.

    Several are made at once, as far as processors and memory allow. The first failure ends the others; what they have
    compiled is kept. HostError or BuildError.
    """
    if not pairs:
        return Parts(universal, {})
    at_once = _at_once(site.means, len(pairs), kernels=any(module.own for module in universal.modules))
    shared = Means(max(1, site.means.slots // at_once), site.means.budget_bytes // at_once, site.means.cache)
    running = _Running(site.observe)
    made: dict[str, bytes] = {}
    summaries = []
    # Which warnings are shown is the process's: a thread that turns them off for its backend would turn them on again
    # for the others.
    with warnings.catch_warnings(), ThreadPoolExecutor(at_once, thread_name_prefix="pair") as pool:
        warnings.simplefilter("ignore")
        work = _PairWork(replace(site, means=shared, observe=running.tell), universal, libraries, running)
        waiting = [pool.submit(work.make, pair) for pair in pairs]
        try:
            for one in as_completed(waiting):
                one.result()
        except BaseException:
            for one in waiting:
                one.cancel()
            running.stop()
            raise
    for pair, one in zip(pairs, waiting, strict=True):
        modules, summary = one.result()
        made |= modules
        summaries.append((pair, summary))
    return Parts(universal.model_copy(update={"pairs": (*universal.pairs, *pairs)}), made, tuple(summaries))


def _at_once(means: Means, pairs: int, *, kernels: bool) -> int:
    """Return how many pairs are made at once: where they compile kernels, one, which has all the memory."""
    return 1 if kernels else max(1, min(pairs, means.slots, means.budget_bytes // _HOST_BYTES))


@dataclass
class _Running:
    """The engines that are at work, and the one door to the observer, for many threads."""

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

    site: Site
    universal: Universal
    libraries: Mapping[str, Library]
    running: _Running

    def make(self, pair: Pair) -> tuple[dict[str, bytes], Summary]:
        """Return a pair's modules by their paths in the wheel, and what compiling for it took."""
        folder = self.site.folder / "pairs" / pair.slug
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            try:
                return self._make(pair, folder, log)
            except AttnforgeError as error:
                raise of_pair(pair, error) from error

    def _make(self, pair: Pair, folder: Path, log: IO[str]) -> tuple[dict[str, bytes], Summary]:
        site, plan = self.site, self.site.plan.at(pair)
        source = lay_out_source(site.machine, plan, site.located, folder / "source", _ignore)
        inputs = site.inputs(pair, source)
        left = [str(source / one) for module in self.universal.modules for one in module.shared]
        answers = self.universal.answers if self.libraries else None
        job = Job(
            site.machine, plan, site.located.recipe, inputs, folder, site.means, site.observe, log, self.running.started
        )
        compiled = compile_upstream(job, left, answers)
        linker = site.linker(inputs, folder / "generated", log)
        made = dict(self._link(pair, compiled, linker, folder))
        for used in ("source", "upstream"):
            shutil.rmtree(folder / used, ignore_errors=True)
        site.observe(PairFinished(pair.torch, pair.python, compiled.summary.wall_seconds))
        return made, compiled.summary

    def _link(self, pair: Pair, compiled: Compiled, linker: Linker, folder: Path) -> Iterable[tuple[str, bytes]]:
        known = {module.name: module for module in self.universal.modules}
        for name, objects, like in _modules(compiled):
            module = known.pop(name, None)
            if module is None:
                raise BuildError(f"upstream's build made the module {name}, which the wheel does not have")
            # Where a kernel's unit fell back, upstream's graph of a pair has our unit of the library once more.
            own = [one for one in objects if one.defines.isdisjoint(module.symbols)]
            _check_boundary(own, module, pair)
            paths = [one.path for one in sorted(own, key=lambda one: str(one.path))]
            library = self.libraries.get(name)
            data = linker.module(module.leaf, paths, module.symbols, library, like.data, folder / "link" / name)
            yield _module_path(module, pair, like), data
        if known:
            raise BuildError(f"upstream's build did not make the module {', '.join(sorted(known))}")


def _check_boundary(objects: Sequence[ObjectFile], module: UniversalModule, pair: Pair) -> None:
    """Hold what a pair's host code expects against what the library has: names of ours say sizes and offsets."""
    defined = frozenset[str]().union(*(one.defines for one in objects))
    wanted = frozenset[str]().union(*(one.wants for one in objects)) - defined
    missing = sorted(name for name in wanted if "9attnforge" in name and name not in module.symbols)
    if missing and module.library:
        raise BuildError(
            f"the host code of {pair} does not fit the kernels",
            why=f"what crosses is laid out in another way: {missing[0]} is not in {module.library}",
            hint=f"a wheel of its own: --torch {pair.torch} --python {pair.python}, without --universal",
        )


# --- what upstream's build made


@dataclass(frozen=True, slots=True)
class _Upstream:
    """Upstream's own module: its path in the wheel, and its bytes."""

    path: str
    data: bytes


def _modules(compiled: Compiled) -> list[tuple[str, list[ObjectFile], _Upstream]]:
    """Return the modules of upstream's build: import name, objects, and upstream's own module.

    Each call of ninja makes the objects of one module. BuildError where it can't be told which.
    """
    theirs = {
        path: _Upstream(path, member.data)
        for path, member in read_members(compiled.wheel).items()
        if path.endswith(".so")
    }
    found = []
    for objects in _calls(compiled.products):
        leaf = init_name(objects)
        fitting = [one for path, one in theirs.items() if leaf and PurePosixPath(path).name.partition(".")[0] == leaf]
        if len(fitting) != 1:
            raise BuildError(
                f"it can't be told which module is made of {', '.join(objects[0].sources[:1]) or 'nothing'}",
                why=f"{len(fitting)} modules of upstream's wheel have the name {leaf!r}",
                hint="build it without --universal",
            )
        if pair_of(f"torch0.0/{PurePosixPath(fitting[0].path).name}") is None:
            raise BuildError(
                f"{fitting[0].path} is not of one Python",
                why="a universal wheel has a module for each Python, and this one loads with several as it is",
                hint="build it without --universal",
            )
        found.append((import_name(fitting[0].path), objects, fitting[0]))
    if not found:
        raise BuildError("upstream's build compiled no module", hint="build it without --universal")
    # Calls may come at once, in any order.
    return sorted(found, key=lambda one: one[0])


def _calls(products: Iterable[Product]) -> list[list[ObjectFile]]:
    calls: dict[int, list[ObjectFile]] = {}
    for product in products:
        if product.how not in ("empty", "merged") and product.language is not Language.OTHER:
            cuda = product.language is not Language.CXX
            neutral = is_neutral(product.reads) and product.language is not Language.DEVICE_LINK
            one = read_object(Path(product.output), product.sources, cuda=cuda, neutral=neutral)
            calls.setdefault(product.call, []).append(one)
    return [objects for _, objects in sorted(calls.items())]


def _module_path(module: UniversalModule, pair: Pair, like: _Upstream) -> str:
    return f"{module.folder}/{pair.folder}/{PurePosixPath(like.path).name}"


def _ignore(_: str) -> None:
    """Warnings about the source were given when it was laid out for the first pair."""

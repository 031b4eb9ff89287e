"""The kernels library of a universal wheel, and the modules of its first pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from attnforge.errors import BuildError
from attnforge.link.linker import Library, Linker
from attnforge.link.partition import ObjectFile, Partition, partition, together
from attnforge.model.universal import Universal, UniversalModule
from attnforge.workflow.artifacts import Compiled, Parts
from attnforge.workflow.job import Context, Job
from attnforge.workflow.providing import inputs_of
from attnforge.workflow.universal.linking import linker_of
from attnforge.workflow.universal.objects import BuiltModule, built_modules


def link_first(context: Context) -> Parts:
    """Link the libraries, and the first pair's modules. BuildError where objects can't be linked."""
    job, compiled, inputs = context.job, context.of(Compiled), inputs_of(context)
    linker, pair = linker_of(job, inputs), job.plan.pairs[0]
    modules, libraries, built = [], dict[str, Library](), dict[str, bytes]()
    for one in built_modules(compiled):
        parts, library = _library(job, linker, one)
        module = _described(one.name, parts, library, inputs.source)
        modules.append(module)
        if library is not None:
            libraries[one.name] = library
            built[module.library_path] = library.path.read_bytes()
        own = [part.path for part in parts.own]
        folder = job.folder / "link" / pair.slug / one.name
        built[one.place(module, pair)] = linker.module(module.leaf, own, parts.crossing, library, one.data, folder)
    answers = tuple(sorted(compiled.answers)) if libraries else ()
    return Parts(Universal(pairs=(pair,), modules=tuple(modules), answers=answers), libraries, built)


def _library(job: Job, linker: Linker, module: BuiltModule) -> tuple[Partition, Library | None]:
    """Return the library and what stays in the modules; all does where kernels can't be linked by themselves."""
    name, parts = module.name, partition(module.objects)
    _tell_own(job, name, [one for one in parts.own if one.cuda])
    if not parts.shared:
        return parts, None
    try:
        return parts, linker.library(name, parts, job.folder / "link" / "library" / name)
    except BuildError as error:
        job.warn(f"{name} keeps its kernels in each pair's module: {error.what}: {error.why}")
        return together([*parts.shared, *parts.own]), None


def _tell_own(job: Job, name: str, own: Sequence[ObjectFile]) -> None:
    sources = sorted({PurePosixPath(source).name for one in own for source in one.sources})
    if sources:
        why = "since these read headers of PyTorch, or need what does"
        job.tell(f"{name} keeps kernels in each pair's module, {why}: {', '.join(sources)}")


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

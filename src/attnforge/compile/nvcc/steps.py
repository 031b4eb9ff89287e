"""Takes an nvcc call apart into its steps, so that each can run, be measured and be cached by itself.

``nvcc --dryrun`` prints the steps: preprocess, cudafe++, cicc, ptxas, fatbinary, host compile. nvcc names its
temporary files by process id, and cudafe++ makes a module id that holds a process id and a hash of the path; both end
up in symbol names inside the object. Here the same steps get names that follow from the source alone, and each
architecture but the last a folder of its own. So what a step reads, writes and is told does not depend on the folder,
the process or the other architectures, and steps that do not need one another can run at once.

Seen with CUDA 13.0, and in the listings of 12.3 and 12.4: every architecture has its own files; the host compile
includes only the stub of the last one. Unknown forms are refused: nvcc then runs unchanged.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path, PurePosixPath

from attnforge.compile.nvcc.dryrun import UnknownStepsError, parse, settle, value_of
from attnforge.compile.nvcc.prefixes import Prefixes

_ELF_HEADER = 64


class Tool(StrEnum):
    """What kind of program a step runs."""

    PREPROCESS = "preprocess"
    CUDAFE = "cudafe++"
    CICC = "cicc"
    PTXAS = "ptxas"
    FATBINARY = "fatbinary"
    COMPILE = "compile"
    OTHER = "other"


_TOOLS = {tool.value: tool for tool in (Tool.CUDAFE, Tool.CICC, Tool.PTXAS, Tool.FATBINARY)}

# Options of the steps by which they name what they write and what they read. What cicc writes as C and .gpu nobody
# reads; cudafe++ gets the name of the stub only to include it.
WRITTEN_BY = frozenset({"-o", "--gen_c_file_name", "--stub_file_name", "--gen_device_file_name"})
UNREAD = {(Tool.CICC, "--gen_c_file_name"), (Tool.CICC, "--gen_device_file_name")}
_WRITTEN_JOINED = ("--embedded-fatbin=", "--create=")
_READ_JOINED = re.compile(r"--image3?=.*\bfile=")
_NAMED = {"--orig_src_file_name", "--orig_src_path_name"}
_IDENT = "--ident="


@dataclass(frozen=True)
class Step:
    """One program of an nvcc call. All paths but those in ``argv`` are absolute.

    ``label`` is unique in a call ("cicc sm_90a"). ``reads`` are files that earlier steps write, ``writes`` those that
    later steps may read, and the object (a ptxas that only checks PTX writes nothing). ``needs`` are the labels of
    the steps that write what this one reads, by name or by #include. ``cwd`` is the folder to run in, "" for the
    call's own. ``depfile`` is where the names of the headers that were read are written, "" for nowhere.
    """

    label: str
    tool: Tool
    argv: tuple[str, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    cwd: str = ""
    depfile: str = ""


def dissect(
    text: str, folder: str, module_id_file: str, output: str, prefixes: Prefixes | None = None
) -> tuple[dict[str, str], tuple[Step, ...]]:
    """Return the settings for the steps' environment and the steps of an nvcc call, in an order in which they can run.

    ``text`` is what ``dryrun_argv`` printed, ``folder`` the steps' own (absolute), ``module_id_file`` holds the module
    id, ``output`` is where the object goes. ``prefixes`` name the source in messages. The folders that files are
    written to must be made first (see ``folders``). Raises UnknownStepsError if a form is not known.
    """
    listing = settle(parse(text), folder, module_id_file)
    drafts = [_draft(command, folder, output, prefixes or Prefixes({})) for command in listing.commands]
    if sum(draft.tool is Tool.COMPILE for draft in drafts) != 1 or drafts[-1].tool is not Tool.COMPILE:
        raise UnknownStepsError("no host compile at the end")
    drafts[-1] = replace(drafts[-1], reads=(*drafts[-1].reads, *_included(listing.commands, folder)))
    return listing.environment, tuple(_linked(_labelled(drafts), module_id_file))


def folders(steps: Iterable[Step]) -> tuple[str, ...]:
    """Return the folders that must be there before the steps run."""
    written = [path for step in steps for path in (*step.writes, step.depfile) if path]
    return tuple(sorted({str(PurePosixPath(path).parent) for path in written}))


def _draft(command: tuple[str, ...], folder: str, output: str, prefixes: Prefixes) -> Step:
    """Return a step without its label and needs."""
    tool = _tool(command)
    if tool is Tool.COMPILE:
        at = command.index("-o") + 1 if "-o" in command[:-1] else 0
        if not at:
            raise UnknownStepsError("the host compile names no object")
        command = (*command[:at], output, *command[at + 1 :])
    reads, writes = _files(command, folder, tool)
    step = Step("", tool, command, reads, (output,) if tool is Tool.COMPILE else writes)
    if tool in (Tool.PREPROCESS, Tool.COMPILE):
        return _with_depfile(step, folder)
    return step if tool is Tool.OTHER else _within(step, folder, prefixes)


def _tool(command: Sequence[str]) -> Tool:
    name = PurePosixPath(command[0]).name
    if name in _TOOLS:
        return _TOOLS[name]
    if "-E" in command:
        return Tool.PREPROCESS
    return Tool.COMPILE if "-c" in command else Tool.OTHER


def _files(command: Sequence[str], folder: str, tool: Tool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files in ``folder`` that a command reads, and those that it writes."""
    reads, writes = [], []
    for before, word in zip(("", *command), command, strict=False):
        joined = next((option for option in _WRITTEN_JOINED if word.startswith(option)), "")
        image = _READ_JOINED.match(word)
        path = word[len(joined) or (image.end() if image else 0) :]
        if path.startswith(folder + "/"):
            if not joined and before not in WRITTEN_BY:
                reads.append(path)
            elif (tool, before) not in UNREAD:
                writes.append(path)
        elif folder + "/" in word:
            raise UnknownStepsError(word)
    return tuple(reads), tuple(writes)


def _with_depfile(step: Step, folder: str) -> Step:
    """Have the compiler write which headers it read (gcc: with -E, -MF is needed so that -o stays the output)."""
    named = step.reads if step.tool is Tool.COMPILE else step.writes
    if len(named) != 1:
        raise UnknownStepsError(f"a {step.tool} of {len(named)} files")
    depfile = named[0] + ".d"
    return replace(step, argv=(step.argv[0], "-MD", "-MF", depfile, *step.argv[1:]), depfile=depfile)


def _within(step: Step, folder: str, prefixes: Prefixes) -> Step:
    """Run a step in its folder, so that it gets, and writes, file names without folders."""
    owner = next(iter((*step.writes, *step.reads)), f"{folder}/")
    cwd = folder if step.tool is Tool.FATBINARY else str(PurePosixPath(owner).parent)
    argv = [step.argv[0]]
    for before, word in pairwise(step.argv):
        named = before in _NAMED
        argv.append(prefixes.name(word) if named else _ident(word, prefixes).replace(cwd + "/", ""))
    return replace(step, argv=tuple(argv), cwd=cwd)


def _ident(word: str, prefixes: Prefixes) -> str:
    return _IDENT + prefixes.name(word[len(_IDENT) :]) if word.startswith(_IDENT) else word


def _included(commands: Iterable[Sequence[str]], folder: str) -> list[str]:
    """Return the files that the host compile reads by #include: the stub, and the fatbin that the stub includes."""
    values = [
        (value_of(command, "--stub_file_name"), value_of(command, "--include_file_name"))
        for command in commands
        if _tool(command) in (Tool.CUDAFE, Tool.CICC)
    ]
    names = {name for pair in values for name in pair if name and "/" not in name}
    return [f"{folder}/{name}" for name in sorted(names)]


def _labelled(drafts: Sequence[Step]) -> list[Step]:
    """Name each step after its tool and architecture."""
    read_by = {path: _architecture(step) for step in drafts if step.tool is Tool.CICC for path in step.reads}
    labels: list[str] = []
    for step in drafts:
        target = _architecture(step) or next((read_by[path] for path in step.writes if path in read_by), "")
        name = PurePosixPath(step.argv[0]).name if step.tool is Tool.OTHER else step.tool.value
        label = f"{name} {target}".rstrip()
        same = sum(other == label or other.startswith(label + " #") for other in labels)
        labels.append(f"{label} #{same + 1}" if same else label)
    return [replace(step, label=label) for step, label in zip(drafts, labels, strict=True)]


def _architecture(step: Step) -> str:
    if step.tool is Tool.CICC:
        return value_of(step.argv, "-arch").replace("compute_", "sm_")
    if step.tool is Tool.PTXAS:
        return next((word.removeprefix("-arch=") for word in step.argv if word.startswith("-arch=")), "")
    return ""


def _linked(steps: Iterable[Step], module_id_file: str) -> Iterator[Step]:
    """Say for each step which ones it needs; a tool that is not known needs all before it, and is needed by all after.

    Raises UnknownStepsError if a file has no step that writes it, or two.
    """
    writers: dict[str, str] = {}
    earlier: list[str] = []
    barrier: list[str] = []
    for step in steps:
        reads = tuple(dict.fromkeys(path for path in step.reads if path != module_id_file))
        if any(path not in writers for path in reads) or any(path in writers for path in step.writes):
            raise UnknownStepsError(f"what {step.label} reads or writes")
        needs = earlier if step.tool is Tool.OTHER else [*barrier, *(writers[path] for path in reads)]
        yield replace(step, reads=reads, needs=tuple(dict.fromkeys(needs)))
        writers.update(dict.fromkeys(step.writes, step.label))
        earlier = [*earlier, step.label]
        barrier = [step.label] if step.tool is Tool.OTHER else barrier


# --- what steps write

_ROLES = {"-o": "output", "--gen_c_file_name": "c", "--stub_file_name": "stub"}


def outputs(step: Step) -> dict[str, str]:
    """Return the files that a step writes and others read, by names that are the same wherever it runs."""
    named = {}
    for option, word in pairwise(step.argv):
        path = os.path.normpath(os.path.join(step.cwd, word))  # noqa: PTH118 - Path would not normalize
        if option in WRITTEN_BY and path in step.writes:
            named[_ROLES[option]] = path
    return named


def is_whole(image: Path) -> bool:
    """Say whether an ELF image is as long as its header says. In a cubin both tables come last (seen with 13.0).

    On a full disk ptxas of CUDA 13.0 writes a part of its output only, and exits with 0.
    """
    with image.open("rb") as file:
        header = file.read(_ELF_HEADER)
        size = file.seek(0, os.SEEK_END)
    if len(header) < _ELF_HEADER:
        return False
    programs, sections = struct.unpack_from("<QQ", header, 32)
    program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", header, 54)
    return bool(size >= max(programs + program_size * program_count, sections + section_size * section_count))

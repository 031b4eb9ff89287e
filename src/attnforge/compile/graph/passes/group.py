"""Merges the units of a group into one, which compiles what they share once.

The merged unit is a file of ours that includes the members' own files, compiled with the command that they have in
common. Units are not merged where one could change what another means. What this misses, the compiler finds: the
engine then compiles the members separately.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from attnforge.compile.graph.commands import redirected
from attnforge.model.graph import CompileGraph, GeneratedFile, InParts, Language, Pass, Unit
from attnforge.model.kernels import JOINT

Read = Callable[[str], str]
"""Returns the text of a source file by its path; OSError or UnicodeError if it can't."""

_SOURCE = "<source>"


def group(groups: Sequence[Sequence[str]], folder: str, read: Read) -> Pass:
    """Return the pass that merges the units of each group, given by the names of their kernels.

    ``folder`` is where the files go that include the members' sources.
    """

    def apply(graph: CompileGraph) -> CompileGraph:
        by_kernel = {unit.kernel: unit for unit in graph.units if unit.kernel and not unit.empty}
        merged, empty, files = {}, set(), []
        for names in groups:
            for members in _alike([by_kernel[name] for name in names if name in by_kernel], read):
                unit, file = _merge(members, folder)
                merged[unit.output] = unit
                empty |= set(unit.members)
                files.append(file)

        def changed(unit: Unit) -> Unit:
            return merged.get(unit.output) or (replace(unit, empty=True) if unit.output in empty else unit)

        return replace(graph, units=tuple(map(changed, graph.units))).with_files(*files)

    return apply


def _alike(units: Sequence[Unit], read: Read) -> list[list[Unit]]:
    """Return those of the units that can be merged with one another, two or more in each list."""
    alike: dict[_Ground, list[Unit]] = {}
    for unit in units:
        ground = _ground(unit, read)
        if ground is not None:
            alike.setdefault(ground, []).append(unit)
    return [members for members in alike.values() if len(members) > 1]


@dataclass(frozen=True, slots=True)
class _Ground:
    """What units must have in common: the command without its files, both folders, what their sources include, and
    whether and how their kernels are compiled in parts.
    """

    argv: tuple[str, ...]
    cwd: str
    folder: str
    includes: tuple[str, ...]
    parts: InParts | None


def _ground(unit: Unit, read: Read) -> _Ground | None:
    """Return what a unit must share with others of its group, or None if it can't be merged."""
    if unit.language is not Language.CUDA or unit.needs or len(unit.sources) != 1:
        return None
    source = unit.sources[0]
    argv = redirected(unit, "<output>", "<depfile>")
    named = [word for word in argv or () if _is_source(unit, word)]
    if argv is None or len(named) != 1 or re.search(r'["\\\n\r]', source):
        return None
    try:
        text = read(source)
    except (OSError, UnicodeError):
        return None
    if obstacles(text):
        return None
    words = tuple(_SOURCE if word in named else word for word in argv)
    directives = _directives(_without_comments(text))[0]
    includes = tuple(line for line in directives if _HARMLESS.fullmatch(line))
    return _Ground(words, unit.cwd, str(PurePath(source).parent), includes, unit.parts)


def _is_source(unit: Unit, word: str) -> bool:
    return os.path.normpath(os.path.join(unit.cwd, word)) == unit.sources[0]  # noqa: PTH118 - Path would not normalize


def _merge(members: Sequence[Unit], folder: str) -> tuple[Unit, GeneratedFile]:
    first, *others = members
    kernel = JOINT.join(unit.kernel for unit in members)
    digest = hashlib.sha256(kernel.encode()).hexdigest()[:16]
    file = GeneratedFile(
        f"{folder}/{first.kernel}-and-{len(others)}-more-{digest}.cu",
        "".join(f'#include "{unit.sources[0]}"\n' for unit in members),
    )
    merged = replace(
        first,
        sources=(file.path, *(unit.sources[0] for unit in members)),
        argv=tuple(file.path if _is_source(first, word) else word for word in first.argv),
        kernel=kernel,
        members=tuple(unit.output for unit in others),
        fallback=tuple(members),
    )
    return merged, file


# --- what a source says

# A raw string, a string, a character; the last not within a number such as 1'000.
_LITERAL = (
    r'''R"(?P<delimiter>[^()\\\s]{0,16})\(.*?\)(?P=delimiter)"|"(?:\\.|[^"\\\n])*"'''
    r"""|(?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'"""
)
_LITERALS = re.compile(_LITERAL, re.DOTALL)
_COMMENTS_AND_LITERALS = re.compile(rf"//[^\n]*|/\*.*?\*/|(?P<literal>{_LITERAL})", re.DOTALL)
_HARMLESS = re.compile(r"#\s*(?:include\b.*|pragma\s+once)\s*")
_CONDITION = re.compile(r"#\s*(?:if|ifdef|ifndef|elif|else|endif)\b.*")
_NAMESPACE = re.compile(r"(?:inline\s+)?namespace\s+(?:\w|::|\s)+")
_UNENDED = "declarations or braces that do not end"
_SHOWN = 60


def obstacles(text: str) -> tuple[str, ...]:
    """Return why a source can't be merged with others, in its order; nothing if it can.

    At namespace scope it may have what brings no name into being: includes, conditions after the last of them (which
    then see the same macros in each member), explicit specializations and instantiations of templates. Macros, static
    and anonymous names, using-directives, variables and whatever else is declared there could meet those of another
    member, or change what its code means.
    """
    directives, code = _directives(_without_comments(text))
    last = max((at for at, line in enumerate(directives) if _HARMLESS.fullmatch(line)), default=-1)
    refused = [
        f"the directive {line[:_SHOWN]}"
        for at, line in enumerate(directives)
        if not _HARMLESS.fullmatch(line) and not (at > last and _CONDITION.fullmatch(line))
    ]
    return (*refused, *_declared(_LITERALS.sub('""', code)))


def _without_comments(text: str) -> str:
    spliced = re.sub(r"\\\r?\n", "", text)
    return _COMMENTS_AND_LITERALS.sub(lambda match: match["literal"] or " ", spliced)


def _directives(text: str) -> tuple[list[str], str]:
    """Return the preprocessor's lines, and the rest."""
    lines = text.splitlines()
    directives = [line.strip() for line in lines if line.lstrip().startswith("#")]
    return directives, "\n".join(line for line in lines if not line.lstrip().startswith("#"))


def _declared(code: str) -> list[str]:
    """Return what is declared at namespace scope and must not be. Bodies are not looked into."""
    found: list[str] = []
    head, namespaces, body = "", 0, 0
    for token in re.findall(r"[{};]|[^{};]+", code):
        if body:
            body += {"{": 1, "}": -1}.get(token, 0)
        elif token not in "{};":
            head = token
        elif token == "{" and _NAMESPACE.fullmatch(head.strip()):
            namespaces, head = namespaces + 1, ""
        elif token == "}" and namespaces and not head.strip():
            namespaces, head = namespaces - 1, ""
        elif token == "}":
            return [*found, _UNENDED]
        else:
            found += _refused(head)
            body, head = int(token == "{"), ""
    return [*found, _UNENDED] if namespaces or body or head.strip() else found


def _refused(head: str) -> list[str]:
    """Return why a declaration must not be there, from the text before its body or end; nothing if it may."""
    words = " ".join(head.split())
    if not words:
        return []
    if re.match(r"(?:inline )?namespace\b(?! ?\w)", words):
        return ["an anonymous namespace"]
    if re.match(r"using namespace\b", words):
        return [f"the using-directive {words[:_SHOWN]}"]
    if re.search(r"\bstatic\b", words):
        return [f"the static name {words[:_SHOWN]}"]
    if re.search(r"\b__(?:constant|managed|shared)__\b", words) or ("__device__" in words and "(" not in words):
        return [f"the device variable {words[:_SHOWN]}"]
    # Not extern template: it takes from the other members what they would instantiate themselves.
    if re.match(r"template ?<\s*>|template\b(?! ?<)", words):
        return []
    return [f"the declaration {words[:_SHOWN]}"]

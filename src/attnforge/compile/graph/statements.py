"""Reads the statements of a build.ninja: its build statements, with all variables expanded. Pure.

The syntax is that of https://ninja-build.org/manual.html ("Ninja file reference"), as far as PyTorch, CMake and
packages with their own writer use it. Unknown statements (dynamic dependencies, validations) are errors with their
line, because a graph that was half understood would give a wrong wheel. Pools are ignored: the build's scheduler
decides what runs at once.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from attnforge.errors import BuildError

Read = Callable[[str], str]
"""Returns the text of an included file by its absolute path; OSError if it can't."""

# The release whose syntax this module reads, and that the seat answers to --version.
NINJA_VERSION = "1.13.0"


def edges_of(text: str, cwd: str, read: Read | None = None) -> tuple[list[Edge], tuple[str, ...]]:
    """Return the build statements of a build.ninja in the absolute folder ``cwd``, and its default targets.

    BuildError names the line of a statement that is wrong or not supported.
    """
    reader = _Reader(cwd, read)
    reader.file(text, "build.ninja", reader.scope)
    return reader.edges, tuple(reader.defaults)


# --- text with variables


@dataclass(frozen=True, slots=True)
class _Text:
    """Text with variables in it, not expanded: literal pieces and (as one-element tuples) names of variables."""

    pieces: tuple[str | tuple[str], ...]

    def expand(self, lookup: Callable[[str], str]) -> str:
        return "".join(piece if isinstance(piece, str) else lookup(piece[0]) for piece in self.pieces)


_NAME = r"[A-Za-z0-9_.-]+"
# A variable without braces can't hold a dot: "$out.d" is the variable "out" and ".d".
_ESCAPE = re.compile(rf"\$(?:(?P<literal>[$ :])|(?P<name>[A-Za-z0-9_-]+)|\{{(?P<braced>{_NAME})\}})")


def _scan(text: str, stop: str, fail: Callable[[str], NoReturn]) -> tuple[_Text, str]:
    """Read text up to the first unescaped character of ``stop``; return it and what follows."""
    pieces: list[str | tuple[str]] = []
    at = 0
    while at < len(text) and text[at] not in stop:
        if text[at] != "$":
            end = at + 1
            while end < len(text) and text[end] not in stop and text[end] != "$":
                end += 1
            pieces.append(text[at:end])
            at = end
            continue
        match = _ESCAPE.match(text, at)
        if match is None:
            fail(f"bad $-escape {text[at : at + 2]!r} (a literal $ is written $$)")
        literal, name = match["literal"], match["name"] or match["braced"]
        pieces.append(literal if literal else (name,))
        at = match.end()
    return _Text(tuple(pieces)), text[at:]


# --- statements


@dataclass(frozen=True, slots=True)
class Line:
    """A logical line: continuations joined, ``number`` that of its first line."""

    file: str
    number: int
    indented: bool
    text: str

    def fail(self, why: str) -> NoReturn:
        """Raise the BuildError that names this line."""
        raise BuildError(
            f"{self.file}, line {self.number}: {why}",
            why="upstream's build wrote a ninja file that attnforge does not understand",
            hint="report it with that file, or build that package with its own ninja",
        )


def _logical_lines(text: str, file: str) -> Iterator[Line]:
    physical = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(physical):
        number, line = at + 1, physical[at]
        at += 1
        stripped = line.lstrip(" ")
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.startswith("\t"):
            Line(file, number, False, "").fail("tabs are not allowed, use spaces")
        joined = stripped
        while _continues(joined) and at < len(physical):
            joined = joined[:-1] + physical[at].lstrip(" ")
            at += 1
        yield Line(file, number, line.startswith(" "), joined)


def _continues(line: str) -> bool:
    """Say whether the line ends in an unescaped $: an odd number of them."""
    return (len(line) - len(line.rstrip("$"))) % 2 == 1


@dataclass(slots=True)
class _Scope:
    """Variables and rules of a file. A subninja's scope sees its parent's."""

    variables: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Mapping[str, _Text]] = field(default_factory=dict)
    parent: _Scope | None = None

    def variable(self, name: str) -> str:
        if name in self.variables:
            return self.variables[name]
        return self.parent.variable(name) if self.parent else ""

    def rule(self, name: str) -> Mapping[str, _Text] | None:
        if name in self.rules:
            return self.rules[name]
        return self.parent.rule(name) if self.parent else None


@dataclass(frozen=True, slots=True)
class Edge:
    """A build statement with its paths expanded. ``rule`` is None for phony."""

    line: Line
    rule: Mapping[str, _Text] | None
    scope: _Scope
    bindings: Mapping[str, str]
    outputs: tuple[str, ...]
    implicit_outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    other_inputs: tuple[str, ...]

    def value(self, name: str, *, quoted: bool) -> str:
        """Expand a variable of the edge: build statement, then rule, then file ("Variable scope" in the manual)."""
        return self._value(name, quoted, ())

    def _value(self, name: str, quoted: bool, open_names: tuple[str, ...]) -> str:
        if name in ("in", "out", "in_newline"):
            paths = self.outputs if name == "out" else self.inputs
            written = map(shlex.quote, paths) if quoted else paths
            return ("\n" if name == "in_newline" else " ").join(written)
        if name in self.bindings:
            return self.bindings[name]
        text = (self.rule or {}).get(name)
        if text is None:
            return self.scope.variable(name)
        if name in open_names:
            self.line.fail(f"cycle in rule variables: {' -> '.join((*open_names, name))}")
        return text.expand(lambda inner: self._value(inner, quoted, (*open_names, name)))


_RULE_VARIABLES = frozenset(
    (
        *("command", "depfile", "deps", "description", "generator", "in", "in_newline", "msvc_deps_prefix", "out"),
        *("pool", "restat", "rspfile", "rspfile_content"),
    )
)
_UNSUPPORTED = frozenset(("dyndep",))
_STATEMENT = re.compile(rf"(?P<word>{_NAME}) *(?P<rest>.*)", re.DOTALL)
_ASSIGNMENT = re.compile(rf"(?P<name>{_NAME}) *= *(?P<value>.*)", re.DOTALL)


class _Reader:
    """Collects the edges of a file and of those that it includes."""

    def __init__(self, cwd: str, read: Read | None) -> None:
        self.cwd = cwd
        self.read = read
        self.scope = _Scope()
        self.edges: list[Edge] = []
        self.defaults: list[str] = []
        self._open: list[str] = []

    def file(self, text: str, name: str, scope: _Scope) -> None:
        lines = list(_logical_lines(text, name))
        at = 0
        while at < len(lines):
            head = lines[at]
            end = at + 1
            while end < len(lines) and lines[end].indented:
                end += 1
            self._statement(head, lines[at + 1 : end], scope)
            at = end

    def _statement(self, head: Line, block: list[Line], scope: _Scope) -> None:
        if head.indented:
            head.fail("unexpected indent")
        assignment = _ASSIGNMENT.fullmatch(head.text)
        if assignment is not None:
            self._no_block(block)
            self._assign(head, assignment, scope)
            return
        match = _STATEMENT.fullmatch(head.text)
        word = match["word"] if match else ""
        if match is None or word not in ("rule", "build", "default", "include", "subninja", "pool"):
            head.fail(f"{word or head.text!r} is not supported here")
        if word == "pool":
            return
        if word == "rule":
            self._rule(head, match["rest"], block, scope)
        elif word == "build":
            self._build(head, match["rest"], block, scope)
        else:
            self._no_block(block)
            paths = [path.expand(scope.variable) for path in _paths(match["rest"], head)]
            self._default(paths) if word == "default" else self._include(head, word, paths, scope)

    @staticmethod
    def _no_block(block: list[Line]) -> None:
        if block:
            block[0].fail("unexpected indent")

    @staticmethod
    def _assign(head: Line, assignment: re.Match[str], scope: _Scope) -> None:
        value, _ = _scan(assignment["value"], "", head.fail)
        name, expanded = assignment["name"], value.expand(scope.variable)
        if name == "ninja_required_version" and _version(expanded) > _version(NINJA_VERSION):
            head.fail(f"it requires ninja {expanded}; attnforge implements {NINJA_VERSION}")
        scope.variables[name] = expanded

    @staticmethod
    def _rule(head: Line, rest: str, block: list[Line], scope: _Scope) -> None:
        name = rest.strip(" ")
        if not re.fullmatch(_NAME, name):
            head.fail(f"{name!r} is not a rule's name")
        if name in scope.rules or name == "phony":
            head.fail(f"duplicate rule {name!r}")
        rule = dict(_binding(line) for line in block)
        for line, key in zip(block, rule, strict=False):
            if key in _UNSUPPORTED:
                line.fail(f"{key!r} is not supported")
            if key not in _RULE_VARIABLES:
                line.fail(f"unexpected variable {key!r} in rule {name!r}")
        if "command" not in rule:
            head.fail(f"rule {name!r} has no command")
        scope.rules[name] = rule

    def _build(self, head: Line, rest: str, block: list[Line], scope: _Scope) -> None:
        bindings = {}
        for line in block:
            key, value = _binding(line)
            if key in _UNSUPPORTED:
                line.fail(f"{key!r} is not supported")
            bindings[key] = value.expand(scope.variable)
        # The paths of a build statement see its own bindings ("Build statements" in the manual).
        local = _Scope(dict(bindings), parent=scope)
        outputs, inputs, rule_name = _sections(rest, head)
        if rule_name != "phony" and scope.rule(rule_name) is None:
            head.fail(f"unknown rule {rule_name!r}")

        def expanded(paths: list[_Text]) -> tuple[str, ...]:
            return tuple(_canonical(path.expand(local.variable), head) for path in paths)

        edge = Edge(
            line=head,
            rule=None if rule_name == "phony" else scope.rule(rule_name),
            scope=scope,
            bindings=bindings,
            outputs=expanded(outputs[""]),
            implicit_outputs=expanded(outputs["|"]),
            inputs=expanded(inputs[""]),
            other_inputs=expanded(inputs["|"] + inputs["||"]),
        )
        if not edge.outputs:
            head.fail("a build statement needs an output")
        self.edges.append(edge)

    def _default(self, paths: list[str]) -> None:
        self.defaults.extend(paths)

    def _include(self, head: Line, word: str, paths: list[str], scope: _Scope) -> None:
        if len(paths) != 1:
            head.fail(f"{word} takes one path")
        path = posixpath.normpath(posixpath.join(self.cwd, paths[0]))
        if self.read is None:
            head.fail(f"{word} {path!r}: no other file can be read here")
        if path in self._open:
            head.fail(f"{word} {path!r}: it includes itself")
        try:
            text = self.read(path)
        except OSError as error:
            head.fail(f"{word} {path!r}: {error.strerror}")
        self._open.append(path)
        self.file(text, paths[0], scope if word == "include" else _Scope(parent=scope))
        self._open.pop()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def _binding(line: Line) -> tuple[str, _Text]:
    match = _ASSIGNMENT.fullmatch(line.text)
    if match is None:
        line.fail("expected name = value")
    value, _ = _scan(match["value"], "", line.fail)
    return match["name"], value


def _paths(text: str, line: Line) -> list[_Text]:
    """Read paths up to the line's end."""
    paths = []
    rest = text.lstrip(" ")
    while rest:
        if rest[0] in ":|":
            line.fail(f"unexpected {rest[0]!r}")
        path, rest = _scan(rest, " :|", line.fail)
        paths.append(path)
        rest = rest.lstrip(" ")
    return paths


_Sections = dict[str, list[_Text]]


def _sections(text: str, line: Line) -> tuple[_Sections, _Sections, str]:
    """Split a build statement into outputs and inputs, each by its marker ("", "|", "||"), and the rule's name."""
    outputs, rest = _marked(text, line, ("|",))
    if not rest.startswith(":"):
        line.fail("expected ':' and a rule after the outputs")
    match = _STATEMENT.fullmatch(rest[1:].lstrip(" "))
    if match is None:
        line.fail("expected a rule after ':'")
    inputs, rest = _marked(match["rest"], line, ("|", "||"))
    if rest:
        line.fail(f"unexpected {rest[0]!r}")
    return outputs, inputs, match["word"]


def _marked(text: str, line: Line, markers: tuple[str, ...]) -> tuple[_Sections, str]:
    sections: _Sections = {"": [], "|": [], "||": []}
    current, rest = "", text.lstrip(" ")
    while rest and rest[0] != ":":
        if rest[0] == "|":
            marker = rest[:2] if rest[1:2] in ("|", "@") else "|"
            if marker not in markers or marker <= current:
                line.fail(f"{marker!r} is not supported here")
            current, rest = marker, rest[len(marker) :].lstrip(" ")
            continue
        path, rest = _scan(rest, " :|", line.fail)
        sections[current].append(path)
        rest = rest.lstrip(" ")
    return sections, rest


def _canonical(path: str, line: Line) -> str:
    if not path:
        line.fail("empty path")
    return posixpath.normpath(path)

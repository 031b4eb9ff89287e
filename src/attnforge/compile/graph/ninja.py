"""Reads a build.ninja into a compile graph. Pure: no file is opened here and nothing is run."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from attnforge.compile.graph.commands import arguments, language
from attnforge.compile.graph.statements import Edge, Read, edges_of
from attnforge.errors import BuildError
from attnforge.model.graph import CompileGraph, GeneratedFile, Language, Unit


def parse(text: str, cwd: str, read: Read | None = None, targets: Iterable[str] = ()) -> CompileGraph:
    """Read the text of a build.ninja that is in the absolute folder ``cwd``.

    ``read`` returns the text of an included file by its absolute path. The graph holds the units that ``targets`` (or
    else the file's ``default`` statements, or else everything) ask for, in the order in which they were written.
    BuildError names the line of a statement that is wrong or not supported.
    """
    edges, defaults = edges_of(text, cwd, read)
    return _Assembly(edges, cwd).graph(tuple(targets) or defaults)


class _Assembly:
    """Turns edges into units: absolute paths, argument lists, who needs whom."""

    def __init__(self, edges: list[Edge], cwd: str) -> None:
        self.edges = edges
        self.cwd = cwd
        self.maker: dict[str, Edge] = {}
        for edge in edges:
            for path in (*edge.outputs, *edge.implicit_outputs):
                if self.maker.setdefault(self._absolute(path), edge) is not edge:
                    edge.line.fail(f"two build statements make {path!r}")

    def graph(self, targets: tuple[str, ...]) -> CompileGraph:
        wanted = self._reachable(targets)
        chosen = [edge for edge in self.edges if edge.rule is not None and id(edge) in wanted]
        files = {file.path: file for edge in chosen for file in self._response_file(edge)}
        return CompileGraph(tuple(self._unit(edge) for edge in chosen), tuple(files.values()))

    def _response_file(self, edge: Edge) -> Iterator[GeneratedFile]:
        """Yield the file that a command takes its arguments from, if it does."""
        path = edge.value("rspfile", quoted=False)
        if path:
            yield GeneratedFile(self._absolute(path), edge.value("rspfile_content", quoted=True))

    def _absolute(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.cwd, path))

    def _reachable(self, targets: tuple[str, ...]) -> set[int]:
        """Return the ids of the edges that the targets need; all of them without a target."""
        roots = self.edges
        if targets:
            roots = [self._target(path) for path in targets]
        finished: set[int] = set()
        for root in roots:
            self._visit(root, finished)
        return finished

    def _target(self, path: str) -> Edge:
        edge = self.maker.get(self._absolute(path))
        if edge is None:
            raise BuildError(f"no build statement makes {path!r}", why="upstream's build asked ninja for it")
        return edge

    def _visit(self, root: Edge, finished: set[int]) -> None:
        """Walk the makers of an edge's inputs, depth first without recursion; a cycle is an error."""
        opened: set[int] = set()
        stack = [(root, False)]
        while stack:
            edge, leaving = stack.pop()
            if leaving:
                opened.discard(id(edge))
                finished.add(id(edge))
                continue
            if id(edge) in finished:
                continue
            if id(edge) in opened:
                edge.line.fail("dependency cycle")
            opened.add(id(edge))
            stack.append((edge, True))
            for maker in self._makers(edge):
                if id(maker) in opened:
                    edge.line.fail("dependency cycle")
                stack.append((maker, False))

    def _makers(self, edge: Edge) -> list[Edge]:
        paths = map(self._absolute, (*edge.inputs, *edge.other_inputs))
        return [self.maker[path] for path in paths if path in self.maker]

    def _needs(self, edge: Edge) -> tuple[str, ...]:
        """Return the outputs of the units that an edge waits for; phony edges are replaced by what they need."""
        needs: dict[str, None] = {}
        seen: set[int] = set()
        waiting = list(reversed(self._makers(edge)))
        while waiting:
            maker = waiting.pop()
            if id(maker) in seen:
                continue
            seen.add(id(maker))
            if maker.rule is None:
                waiting.extend(reversed(self._makers(maker)))
            else:
                needs[self._absolute(maker.outputs[0])] = None
        return tuple(needs)

    def _unit(self, edge: Edge) -> Unit:
        argv = arguments(edge.value("command", quoted=True), edge.line.fail)
        depfile = edge.value("depfile", quoted=False)
        sources = tuple(map(self._absolute, edge.inputs))
        # Only what makes exactly one file can be taken from the object store: the rest is an ordinary command.
        single = len(edge.outputs) + len(edge.implicit_outputs) == 1
        return Unit(
            output=self._absolute(edge.outputs[0]),
            sources=sources,
            argv=argv,
            cwd=self.cwd,
            language=language(argv, sources) if single else Language.OTHER,
            needs=self._needs(edge),
            depfile=self._absolute(depfile) if depfile else "",
        )

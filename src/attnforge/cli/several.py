"""One report for each of several wheels, and one exit code. ``audit`` and ``check`` share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from attnforge.cli.show import error_document
from attnforge.cli.terminal import Terminal
from attnforge.errors import AttnforgeError


class Report(Protocol):
    """What a verb reports about a wheel."""

    @property
    def exit_code(self) -> int:
        """The exit code of the verb for this wheel."""

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints."""


def report_each(
    wheels: Sequence[Path],
    report: Callable[[Path], Report],
    out: Terminal,
    *,
    as_json: bool,
    show: Callable[[Any], None],
) -> int:
    """Report on wheels and return the worst exit code. A bad wheel (5) outranks one that could not be checked (6).

    ``show`` prints a report as text. With ``as_json`` the documents are printed at the end, those of several wheels as
    an array. An error of a single wheel is raised. Of several wheels, one that can't be read does not stop the others.
    """
    results = list(_reported(wheels, report, out, as_json=as_json, show=show))
    if as_json:
        documents = [document for document, _ in results]
        out.json(documents if len(wheels) > 1 else documents[0])
    codes = [code for _, code in results]
    return 5 if 5 in codes else max(codes)


def _reported(
    wheels: Sequence[Path],
    report: Callable[[Path], Report],
    out: Terminal,
    *,
    as_json: bool,
    show: Callable[[Any], None],
) -> Iterator[tuple[dict[str, Any], int]]:
    for wheel in wheels:
        try:
            found = report(wheel)
        except AttnforgeError as error:
            if len(wheels) == 1:
                raise
            if not as_json:
                out.error(error, wheel.name)
            yield {"wheel": wheel.name, **error_document(error)}, error.exit_code
        else:
            if not as_json:
                show(found)
            yield found.to_json(), found.exit_code

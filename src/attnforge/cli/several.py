"""One report for each of several wheels, and one exit code. ``audit`` and ``check`` share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attnforge.cli.show import error_document
from attnforge.cli.terminal import Terminal
from attnforge.errors import AttnforgeError
from attnforge.model.audit import AuditReport
from attnforge.model.check import CheckReport

Report = TypeVar("Report", AuditReport, CheckReport)


def report_each(
    wheels: Sequence[Path],
    report: Callable[[Path], Report],
    out: Terminal,
    as_json: bool,
    show: Callable[[Any], object],
) -> int:
    """Report on wheels and return the worst exit code. A bad wheel (5) outranks one that could not be checked (6).

    ``show`` prints a report as text. With ``as_json`` the documents are printed at the end, those of several wheels as
    an array. An error of a single wheel is raised. Of several wheels, one that can't be read does not stop the others.
    """
    documents: list[dict[str, Any]] = []
    codes: list[int] = []
    for wheel in wheels:
        try:
            found = report(wheel)
        except AttnforgeError as error:
            if len(wheels) == 1:
                raise
            document, code = {"wheel": wheel.name, **error_document(error)}, error.exit_code
            if not as_json:
                out.error(error, wheel.name)
        else:
            document, code = found.to_json(), found.exit_code
            if not as_json:
                show(found)
        documents.append(document)
        codes.append(code)
    if as_json:
        out.json(documents if len(wheels) > 1 else documents[0])
    return 5 if 5 in codes else max(codes)

"""``attnforge bench``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from attnforge.bench.work import GRIDS
from attnforge.cli.figures import show
from attnforge.cli.requests import add_environment_options
from attnforge.cli.terminal import Terminal
from attnforge.errors import RequestError
from attnforge.model.benchmark import BenchReport
from attnforge.workflow.benchmarking import BenchOptions, bench_wheels
from attnforge.workflow.machine import Machine

# What --out gets.
_JSON, _PAGE = "benchmark.json", "benchmark.html"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("wheels", nargs="*", metavar="WHEEL", type=Path)
    parser.add_argument(
        "--against",
        nargs=2,
        metavar=("A", "B"),
        type=Path,
        help="compare two wheels of one package: is B faster than A?",
    )
    parser.add_argument(
        "--grid",
        default="quick",
        metavar="NAME",
        help=f"{', '.join(GRIDS)}, or shapes by name; several with commas (default: quick)",
    )
    parser.add_argument("--dtype", default="bf16", choices=("bf16", "fp16"), help="dtype of the inputs (default: bf16)")
    add_environment_options(parser, "create environments with this PyTorch")
    parser.add_argument(
        "--rounds", type=int, default=0, metavar="N", help="rounds for each side (default: 7, or 15 with --against)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="time for each side in each cell, over all rounds (default: 0.02 a round)",
    )
    parser.add_argument("--no-sdpa", action="store_true", help="leave out PyTorch's own backends")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help=f"write {_JSON} and {_PAGE} there")
    parser.add_argument("--report", metavar="FILE", type=Path, help=f"show an earlier {_JSON} without timing")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
    """Time wheels, or show an earlier report."""
    if arguments.out:
        _make(arguments.out)  # before minutes are spent
    report = _read(arguments.report) if arguments.report else _timed(arguments, environ, _teller(arguments.json, out))
    if arguments.json:
        out.json(report.to_json())
    else:
        show(report, out)
    if arguments.out:
        for path in write(report, arguments.out):
            if not arguments.json:
                out.lines([f"wrote {path}"])
    return report.exit_code


def _teller(as_json: bool, out: Terminal) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if not as_json:
            out.lines([f"{line} …"])

    return tell


def _timed(arguments: argparse.Namespace, environ: Mapping[str, str], tell: Callable[[str], None]) -> BenchReport:
    options = BenchOptions(
        grid=arguments.grid,
        dtype=arguments.dtype,
        python=arguments.python or "",
        torch=arguments.torch or "",
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        sdpa=not arguments.no_sdpa,
    )
    return bench_wheels(Machine(environ), arguments.wheels, arguments.against or (), options, tell)


def _read(path: Path) -> BenchReport:
    try:
        return BenchReport.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path} can't be read", why=str(error), hint=f"--report FOLDER/{_JSON}") from error
    except ValueError as error:
        raise RequestError(f"{path} is not a benchmark report", why=str(error).splitlines()[0]) from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{folder} can't be created", why=str(error), hint="--out FOLDER") from error


def write(report: BenchReport, folder: Path) -> tuple[Path, ...]:
    """Write the report as JSON and as a page into an existing folder; return their paths."""
    from attnforge.bench.page import page
    from attnforge.files import write_whole

    texts = {folder / _JSON: json.dumps(report.to_json(), indent=1) + "\n", folder / _PAGE: page(report)}
    for path, text in texts.items():
        write_whole(path, text)
    return tuple(texts)

"""Proves for which units one run of cicc serves two architectures, and writes that down for builds.

    python experiments/shared.py flash-attn==2.8.3 --arches 80,90 [--head-dims 64] [--units forward] [--jobs 32]

Each unit is compiled for all of the architectures, and for each two of these it is seen whether the PTX for the later
one is, byte for byte, what attnforge would make of the earlier one's (compile/ptx.py). What is so goes into a file for
the build of nvcc and the two architectures, in the recipe's folder ``shared`` or in --out. A build shares what it finds
there and nothing else.

Each unit is written down when it is done. Started again, the command takes what was compiled from attnforge's cache.
A proof for all features of a unit holds for fewer. Other versions and toolchains are proven in turn: where their units
are the same, that takes no compiler. Expect an hour on 32 processors for all of FlashAttention 2 and two architectures.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attnforge
from attnforge import AttnforgeError, Machine, Request, plan
from attnforge.model.events import Event, Message, UnitFinished
from attnforge.model.target import Architecture
from attnforge.options import OPTIONS, merge
from attnforge.workflow.prover import Verdict
from attnforge.workflow.proving import keep, prove, proven

_PASSED_ON = (
    "python",
    "torch",
    "cuda",
    "profile",
    "head-dims",
    "dtypes",
    "without",
    "source",
    "toolchain",
    "cuda-mirror",
    "jobs",
    "memory",
    "groups",
    "cache-limit",
)


def main(arguments: Sequence[str]) -> int:
    """Run as a program: 0 where something was proven, 1 where nothing was, else the exit code of the error."""
    given = parsed(arguments)
    command = shlex.join(["python", "experiments/shared.py", *arguments])
    machine, verdicts = Machine(os.environ), list[Verdict]()
    out = given.out or recipe_folder(given.package)

    def tell(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if verdict.proof is not None:
            keep(verdict.proof, out)
        print(line(verdict), flush=True)

    try:
        planned = plan(machine, request_of(given))
        print(
            f"{planned.plan.package} {planned.plan.version}, nvcc {planned.plan.toolchain.nvcc}: into {out}", flush=True
        )
        prove(machine, planned, given.units, command, tell, say)
    except AttnforgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{proven(verdicts)} of {len(verdicts)} proven")
    return 0 if proven(verdicts) else 1


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", metavar="PACKAGE", help="a distribution, or NAME==VERSION")
    parser.add_argument("--arches", default="80,90", help="architectures, at least two: 80,90,100,120 (default 80,90)")
    parser.add_argument(
        "--units", default="", metavar="REGEX", help="those whose kernels' names, or file names, begin so"
    )
    parser.add_argument("--out", type=Path, help="folder for the files (default: the recipe's folder shared)")
    for option in OPTIONS:
        if option.name in _PASSED_ON:
            parser.add_argument(f"--{option.name}", metavar=option.metavar, help=option.help)
    return parser.parse_args(arguments)


def request_of(given: argparse.Namespace) -> Request:
    """Return the request of the build that is watched: for these architectures, without sharing."""
    passed: Mapping[str, Any] = {name: vars(given)[name.replace("-", "_")] for name in _PASSED_ON}
    gpus = tuple(Architecture.parse(word).sm for word in given.arches.split(","))
    return Request(package=given.package, gpus=gpus, no_share_ptx=True, no_parts=True, **merge(passed))


def recipe_folder(package: str) -> Path:
    """Return the folder of a package's proofs."""
    name = package.partition("==")[0].replace("-", "_")
    return Path(attnforge.__file__).parent / "recipes" / name / "shared"


def say(event: Event) -> None:
    """Print what is worth it of a build."""
    if isinstance(event, Message):
        print(f"  {event.text}", flush=True)
    elif isinstance(event, UnitFinished):
        print(f"  {event.name}: {event.how}, {event.cpu_seconds:.0f} s of CPU", flush=True)


def line(verdict: Verdict) -> str:
    """Return a verdict for people."""
    of, code = verdict.pair
    what = f"sm_{code} from compute_{of}  {' + '.join(verdict.units)}"
    if verdict.proof is None:
        return f"differs  {what}: {verdict.why}"
    (unit,) = verdict.proof.units
    order = ", in another order" if unit.reordered else ""
    return f"the same {what}: {unit.functions} functions, {unit.left_out} left out{order}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

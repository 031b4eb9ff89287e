"""A plugin for pytest: runs one shard of a random sample of the collected tests, and writes their results.

It runs in the interpreter that a wheel is for. experiments/upstream_tests.py starts it, with settings in the
environment: SAMPLED_COUNT tests in all, by SAMPLED_SEED, of which shard SAMPLED_SHARD (``0/4``) is run, until
SAMPLED_SECONDS have passed. SAMPLED_NAMES is a file with the names of tests to run instead. A line of JSON goes to
SAMPLED_OUT when a test begins, with the outcome ``begun``, and one with what came of it: so the test that ended the
process is known.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def sample(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Return ``count`` of the names, in their order: as many of each test function as there are, up to an equal share.

    What small functions leave of their share goes to the larger ones. The same arguments give the same sample.
    """
    chooser = random.Random(seed)
    functions: dict[str, list[str]] = {}
    for name in names:
        functions.setdefault(name.partition("[")[0], []).append(name)
    chosen: set[str] = set()
    smallest_first = sorted(functions.values(), key=len)
    for done, group in enumerate(smallest_first):
        share = (count - len(chosen)) // (len(smallest_first) - done)
        chosen.update(chooser.sample(group, min(share, len(group))))
    return [name for name in names if name in chosen]


def shard(names: Sequence[str], text: str) -> list[str]:
    """Return the names of a shard: ``1/4`` is the second of four, each with every fourth name."""
    number, _, of = text.partition("/")
    return list(names)[int(number) :: int(of)]


def _wanted(names: Sequence[str]) -> set[str]:
    given = os.environ.get("SAMPLED_NAMES")
    if given:
        return set(Path(given).read_text(encoding="utf-8").split("\n"))
    chosen = sample(names, int(os.environ["SAMPLED_COUNT"]), int(os.environ["SAMPLED_SEED"]))
    return set(shard(chosen, os.environ["SAMPLED_SHARD"]))


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Keep the sample's tests alone, in random order: where the time ends a run, what ran is a sample too."""
    del config
    wanted = _wanted([item.nodeid for item in items])
    items[:] = [item for item in items if item.nodeid in wanted]
    random.Random(len(items)).shuffle(items)
    planned = Path(os.environ["SAMPLED_OUT"]).with_suffix(".planned")
    planned.write_text("\n".join(item.nodeid for item in items), encoding="utf-8")


_BEGAN = time.monotonic()


def pytest_runtest_logstart(nodeid: str, location: object) -> None:
    """Write that a test begins."""
    del location
    _write([{"name": nodeid, "outcome": "begun", "seconds": 0.0, "why": ""}])


def pytest_runtest_logreport(report: Any) -> None:
    """Write what came of a test: of its call, or of what came before it where that skipped or failed."""
    if report.when == "call" or not report.passed:
        why = "" if report.passed else str(getattr(report, "longrepr", ""))[-_TAIL:]
        _write([{"name": report.nodeid, "outcome": report.outcome, "seconds": report.duration, "why": why}])


_TAIL = 1500


def pytest_runtest_teardown(item: Any) -> None:
    """Stop the run when its time is over."""
    if time.monotonic() - _BEGAN > float(os.environ["SAMPLED_SECONDS"]):
        item.session.shouldstop = "the time is over"


def _write(lines: Iterable[dict[str, object]]) -> None:
    with Path(os.environ["SAMPLED_OUT"]).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)

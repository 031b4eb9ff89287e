"""The newest measurements of compiles on this machine, by key, in a JSON file that builds share."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnforge.files import write_whole
from attnforge.model.cost import Prediction

# Schema 1 had whole units of nvcc under the names that whole units of C++ have now. Schema 2 counted what attnforge
# held to the peaks of small steps.
SCHEMA = 3

# The newest measurements of a key that are kept: enough for a median, few enough to follow a new compiler.
KEEP = 8

# What is predicted above the highest peak that was measured. The same compile holds the same to a hundredth.
PEAK_MARGIN = 1.02

# Where this part of the peak or more is needed again after memory fell, nothing is to be released.
_WORTH = 0.8


@dataclass(frozen=True, slots=True)
class Measured:
    """The newest measurements of a key, oldest first.

    ``lates`` are the bytes that were held after memory had dropped (the peak, where it did not), ``earlies`` the part
    of the time until then.
    """

    seconds: tuple[float, ...] = ()
    peaks: tuple[int, ...] = ()
    lates: tuple[int, ...] = ()
    earlies: tuple[float, ...] = ()

    def with_one(self, seconds: float, peak_bytes: int, late_bytes: int | None = None, early: float = 1.0) -> Measured:
        """Return the measurements with one more; those before the last KEEP are forgotten."""
        late = peak_bytes if late_bytes is None else late_bytes
        return self.followed_by(
            Measured((round(seconds, 2),), (int(peak_bytes),), (int(late),), (round(early, 3),)),
        )

    def followed_by(self, newer: Measured) -> Measured:
        """Return the newest of these measurements and later ones."""
        return Measured(
            (*self.seconds, *newer.seconds)[-KEEP:],
            (*self.peaks, *newer.peaks)[-KEEP:],
            (*self.lates, *newer.lates)[-KEEP:],
            (*self.earlies, *newer.earlies)[-KEEP:],
        )

    def measured(self) -> Prediction:
        """Return the median time and the highest memory: too little costs a compile, too much only waits."""
        peak, late = max(self.peaks), max(self.lates, default=max(self.peaks))
        if late >= _WORTH * peak:
            return Prediction(statistics.median(self.seconds), peak)
        return Prediction(statistics.median(self.seconds), peak, late, statistics.median(self.earlies))

    def prediction(self) -> Prediction:
        """Return the same with a margin above the memory."""
        found = self.measured()
        late = None if found.late_bytes is None else int(PEAK_MARGIN * found.late_bytes)
        return Prediction(found.seconds, int(PEAK_MARGIN * found.peak_bytes), late, found.early)


def load(path: Path) -> dict[str, Measured]:
    """Return what a file holds, by key; nothing if it can't be read. One that makes no sense is set aside."""
    try:
        return _decode(json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError):
        _set_aside(path)
        return {}


def _set_aside(path: Path) -> None:
    try:
        path.replace(path.with_name(path.name + ".unreadable"))
    except OSError:
        return


def _decode(document: Any) -> dict[str, Measured]:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}")
    return {str(key): _decode_one(item) for key, item in document["measured"].items()}


def _decode_one(item: Any) -> Measured:
    seconds = tuple(_numbers(item["seconds"]))
    peaks = tuple(int(peak) for peak in _numbers(item["peaks"]))
    lates = tuple(int(late) for late in _numbers(item["lates"]))
    earlies = tuple(_numbers(item["earlies"]))
    if not seconds or len({len(seconds), len(peaks), len(lates), len(earlies)}) != 1:
        raise ValueError("not as many measurements of each")
    return Measured(seconds[-KEEP:], peaks[-KEEP:], lates[-KEEP:], earlies[-KEEP:])


def _numbers(values: Iterable[Any]) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(0 <= number < float("inf") for number in numbers):
        raise ValueError("not a measurement")
    return numbers


def save(path: Path, measured: Mapping[str, Measured]) -> None:
    """Write a file that ``load`` reads. OSError."""
    document = {
        "schema": SCHEMA,
        "measured": {key: asdict(one) for key, one in sorted(measured.items())},
    }
    write_whole(path, json.dumps(document))

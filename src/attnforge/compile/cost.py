"""What a compile takes: predictions from the recipe's figures, corrected by what was measured on this machine."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnforge.model.cost import Prediction
from attnforge.model.graph import Language, Unit

SCHEMA = 1

# The newest measurements of a key that are kept: enough for a median, few enough to follow a new compiler.
KEEP = 8

_GB = 10**9


# design.md, "What was measured": forward, head dimension 64, all features, one architecture: 129 to 183 s and 3.8 GB.
# A C++ unit that includes PyTorch's headers: about 60 s and 2 GB. A device link or another command reads objects only.
DEFAULTS: Mapping[Language, Prediction] = {
    Language.CUDA: Prediction(150.0, 4 * _GB),
    Language.CXX: Prediction(60.0, 2 * _GB),
    Language.DEVICE_LINK: Prediction(20.0, 1 * _GB),
    Language.OTHER: Prediction(10.0, 1 * _GB),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The newest measurements of a key, oldest first."""

    seconds: tuple[float, ...] = ()
    peaks: tuple[int, ...] = ()

    def with_one(self, seconds: float, peak_bytes: int) -> Measured:
        """Return the measurements with one more; those before the last KEEP are forgotten."""
        return Measured((*self.seconds, round(seconds, 2))[-KEEP:], (*self.peaks, int(peak_bytes))[-KEEP:])

    def prediction(self) -> Prediction:
        """Return the median time and the highest peak: too little memory costs a compile, too much only waits."""
        return Prediction(statistics.median(self.seconds), max(self.peaks))


class CostModel:
    """Predicts a unit's cost by its ``cost_key``: measured here, else the caller's figures, else by its language.

    ``path`` is a JSON file that several builds share. One that can't be understood is set aside and begun anew.
    """

    def __init__(self, path: Path, prior: Mapping[str, Prediction] | None = None) -> None:
        """Read what was learned; ``prior`` holds the figures of the recipe by cost key."""
        self._path = path
        self._prior = dict(prior or {})
        self._lock = threading.Lock()
        self._measured = _load(path)

    def predict(self, unit: Unit) -> Prediction:
        """Return what the unit is expected to take."""
        with self._lock:
            measured = self._measured.get(unit.cost_key) if unit.cost_key else None
        if measured is not None:
            return measured.prediction()
        return self._prior.get(unit.cost_key, DEFAULTS[unit.language])

    def learned(self) -> dict[str, Prediction]:
        """Return what was measured on this machine, by cost key."""
        with self._lock:
            return {key: measured.prediction() for key, measured in self._measured.items()}

    def learn(self, unit: Unit, seconds: float, peak_bytes: int) -> None:
        """Add a measurement and write it down; a unit without a cost key teaches nothing. OSError if it can't be."""
        if not unit.cost_key:
            return
        with self._lock:
            self._measured = self._merge(unit.cost_key, seconds, peak_bytes)

    def _merge(self, key: str, seconds: float, peak_bytes: int) -> dict[str, Measured]:
        """Add to what the file holds now: another build may have written since it was read."""
        from filelock import FileLock

        mine = {**self._measured, key: self._measured.get(key, Measured()).with_one(seconds, peak_bytes)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"):
                theirs = _load(self._path)
                merged = {**theirs, key: theirs.get(key, Measured()).with_one(seconds, peak_bytes)}
                _save(self._path, merged)
        except OSError:
            self._measured = mine
            raise
        return merged


def _load(path: Path) -> dict[str, Measured]:
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
    if not seconds or not peaks:
        raise ValueError("no measurement")
    return Measured(seconds[-KEEP:], peaks[-KEEP:])


def _numbers(values: Iterable[Any]) -> list[float]:
    numbers = [float(value) for value in values]
    if not all(0 <= number < float("inf") for number in numbers):
        raise ValueError("not a measurement")
    return numbers


def _save(path: Path, measured: Mapping[str, Measured]) -> None:
    document = {
        "schema": SCHEMA,
        "measured": {key: {"seconds": one.seconds, "peaks": one.peaks} for key, one in sorted(measured.items())},
    }
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

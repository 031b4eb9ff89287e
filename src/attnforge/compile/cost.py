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

from attnforge.model.cost import SEPARATOR, Prediction, step_key
from attnforge.model.graph import Language, Unit

# Schema 1 had whole units of nvcc under the names that whole units of C++ have now.
SCHEMA = 2

# The newest measurements of a key that are kept: enough for a median, few enough to follow a new compiler.
KEEP = 8

# How far a machine's speed may be taken to differ from the recipe's: beyond, a measurement tells of something else.
SLOWEST, FASTEST = 5.0, 0.2

_GB = 10**9


# design.md, "What was measured": forward, head dimension 64, all features, one architecture: 129 to 183 s and 3.8 GB.
# A C++ unit that includes PyTorch's headers: about 60 s and 2 GB. A device link or another command reads objects only.
DEFAULTS: Mapping[Language, Prediction] = {
    Language.CUDA: Prediction(150.0, 4 * _GB),
    Language.CXX: Prediction(60.0, 2 * _GB),
    Language.DEVICE_LINK: Prediction(20.0, 1 * _GB),
    Language.OTHER: Prediction(10.0, 1 * _GB),
}

# The same CUDA unit by the programs that nvcc runs: of its time cicc takes 76 %, ptxas 17 %, cudafe++ 4 %, the host
# compiler 3 %. The peaks of the small steps are those of units with PyTorch's headers, rounded up.
STEP_DEFAULTS: Mapping[str, Prediction] = {
    "preprocess": Prediction(1.5, _GB // 4),
    "cudafe++": Prediction(6.0, 1 * _GB),
    "cicc": Prediction(110.0, 4 * _GB),
    "ptxas": Prediction(26.0, 1 * _GB),
    "fatbinary": Prediction(0.5, _GB // 4),
    "compile": Prediction(6.0, 1 * _GB),
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
    """Predicts what a unit or a step of it takes: measured here, else the caller's figures, else by what runs.

    The caller's figures (``prior``) are of another machine. Where units that they tell of were measured here, the
    median of the ratios is taken as this machine's factor, for each program alone. ``path`` is a JSON file that several
    builds share. One that can't be understood is set aside and begun anew.
    """

    def __init__(self, path: Path, prior: Mapping[str, Prediction] | None = None) -> None:
        """Read what was learned; ``prior`` holds the figures of the recipe by ``step_key``."""
        self._path = path
        self._prior = dict(prior or {})
        self._lock = threading.Lock()
        self._measured = _load(path)
        self._factors = factors(self._measured, self._prior)

    def predict(self, unit: Unit, label: str = "") -> Prediction:
        """Return what a step of the unit is expected to take; label "" is the whole unit."""
        key = step_key(unit.cost_key, label)
        with self._lock:
            measured = self._measured.get(key) if unit.cost_key else None
            if measured is not None:
                return measured.prediction()
            if key not in self._prior:
                return STEP_DEFAULTS.get(label.split(" ")[0], DEFAULTS[unit.language])
            return _scaled(self._prior[key], self._factors.get(_tool(key), 1.0))

    def expect(self, prior: Mapping[str, Prediction]) -> dict[str, Prediction]:
        """Return what this machine is expected to take for each key of such figures."""
        with self._lock:
            measured, factor = self._measured, factors(self._measured, prior)
        return {
            key: measured[key].prediction() if key in measured else _scaled(one, factor.get(_tool(key), 1.0))
            for key, one in prior.items()
        }

    def learn(self, unit: Unit, label: str, seconds: float, peak_bytes: int) -> None:
        """Add what a step (label "": the unit) took, in CPU seconds, and write it down; OSError if it can't be.

        A unit without a cost key teaches nothing.
        """
        if not unit.cost_key:
            return
        with self._lock:
            try:
                self._measured = self._merge(step_key(unit.cost_key, label), seconds, peak_bytes)
            finally:
                self._factors = factors(self._measured, self._prior)

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


def factors(measured: Mapping[str, Measured], prior: Mapping[str, Prediction]) -> dict[str, float]:
    """Return by how much this machine differs from the prior's in CPU seconds, for each program that nvcc runs.

    The median over the keys that were measured; "" is that of whole units. Kept between FASTEST and SLOWEST.
    """
    ratios: dict[str, list[float]] = {}
    for key in measured.keys() & prior.keys():
        if prior[key].seconds > 0:
            ratios.setdefault(_tool(key), []).append(measured[key].prediction().seconds / prior[key].seconds)
    return {tool: min(max(statistics.median(found), FASTEST), SLOWEST) for tool, found in ratios.items()}


def _tool(key: str) -> str:
    """Return the program of a step's key; "" for a whole unit."""
    _, found, label = key.rpartition(SEPARATOR)
    return label.split(" ")[0] if found else ""


def _scaled(prediction: Prediction, factor: float) -> Prediction:
    """Return the prediction of a machine that takes so many times as long. Memory is the same everywhere."""
    return Prediction(prediction.seconds * factor, prediction.peak_bytes)


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

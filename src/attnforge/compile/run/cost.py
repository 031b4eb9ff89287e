"""Predicts what a compile takes, from the recipe's figures and from measurements on this machine."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from attnforge.compile.run.measured import Measured, load, save
from attnforge.model.cost import SEPARATOR, Prediction, family, step_key
from attnforge.model.graph import Language, Unit

# How far a machine's speed may be taken to differ from the recipe's: beyond, a measurement tells of something else.
SLOWEST, FASTEST = 5.0, 0.2

# A family of units is predicted to hold less than the recipe says when so many of them were measured. More is believed
# of one.
ENOUGH = 3

# A step that is predicted to hold no more than this is never predicted to hold less because others of its kind did:
# there is little to gain, and small steps vary (fatbinary of split-KV units: 0.06 to 0.11 GB).
SMALL_BYTES = 1_500_000_000

# Nor is one because it did so itself, where it took no longer than this: samples can miss what a short step held. Seen:
# 3 MB, which are gcc's, of a preprocessor that held 120 MB.
SHORT_SECONDS = 10.0

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
class Factors:
    """By how much this machine differs from a prior.

    ``tools`` has the factor of CPU seconds for each program that nvcc runs ("": of whole units), ``seconds`` and
    ``bytes`` those for each family of units (model.cost.family).
    """

    tools: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    bytes: Mapping[str, float] = field(default_factory=dict)

    def scaled(self, key: str, prior: Prediction) -> Prediction:
        """Return what is predicted for a key that was not measured."""
        like = family(key)
        time, memory = self.seconds.get(like, self.tools.get(_tool(key), 1.0)), self.bytes.get(like, 1.0)
        late = None if prior.late_bytes is None else int(prior.late_bytes * memory)
        return _at_least(Prediction(prior.seconds * time, int(prior.peak_bytes * memory), late, prior.early), prior)


def _at_least(found: Prediction, prior: Prediction | None) -> Prediction:
    """Return a prediction whose peak is not below that of a prior of few bytes."""
    if prior is None or prior.peak_bytes > SMALL_BYTES:
        return found
    return replace(found, peak_bytes=max(found.peak_bytes, prior.peak_bytes))


def _own(measured: Measured, prior: Prediction | None) -> Prediction:
    """Return what is predicted of a key that was measured."""
    found = measured.prediction()
    return found if found.seconds > SHORT_SECONDS else _at_least(found, prior)


class CostModel:
    """Predicts what a unit or a step of it takes: measured here, else the caller's figures, else by what runs.

    The caller's figures (``prior``) are of another machine. Where units that they tell of were measured here, the
    others are predicted by the ratios (``factors``), from the first unit of a build on. ``path`` is a JSON file that
    several builds share. One that can't be understood is set aside and begun again.
    """

    def __init__(self, path: Path, prior: Mapping[str, Prediction] | None = None) -> None:
        """Read what was learned; ``prior`` holds the figures of the recipe by ``step_key``."""
        self._path = path
        self._prior = dict(prior or {})
        self._lock = threading.Lock()
        self._measured = load(path)
        self._factors = factors(self._measured, self._prior)

    def predict(self, unit: Unit, label: str = "") -> Prediction:
        """Return what a step of the unit is expected to take; label "" is the whole unit."""
        key = step_key(unit.cost_key, label)
        with self._lock:
            measured = self._measured.get(key) if unit.cost_key else None
            if measured is not None:
                return _own(measured, self._prior.get(key))
            if key not in self._prior:
                return STEP_DEFAULTS.get(label.split(" ")[0], DEFAULTS[unit.language])
            return self._factors.scaled(key, self._prior[key])

    def measured(self, unit: Unit, label: str = "") -> Prediction | None:
        """Return what a step of the unit took here; None if it was never measured."""
        key = step_key(unit.cost_key, label)
        with self._lock:
            found = self._measured.get(key) if unit.cost_key else None
        return _own(found, self._prior.get(key)) if found else None

    def expect(self, prior: Mapping[str, Prediction]) -> dict[str, Prediction]:
        """Return what this machine is expected to take for each key of such figures."""
        with self._lock:
            measured, factor = self._measured, factors(self._measured, prior)
        return {
            key: _own(measured[key], one) if key in measured else factor.scaled(key, one) for key, one in prior.items()
        }

    def learn(
        self, unit: Unit, label: str, seconds: float, peak_bytes: int, late_bytes: int | None = None, early: float = 1.0
    ) -> None:
        """Add what a step (label "": the unit) took, in CPU seconds, and write it down; OSError if it can't be.

        ``late_bytes`` and ``early`` are those of model.cost.Prediction. A unit without a cost key teaches nothing.
        """
        if not unit.cost_key:
            return
        key = step_key(unit.cost_key, label)
        with self._lock:
            try:
                self._measured = self._merge(key, Measured().with_one(seconds, peak_bytes, late_bytes, early))
            finally:
                self._factors = factors(self._measured, self._prior)

    def _merge(self, key: str, one: Measured) -> dict[str, Measured]:
        """Add to what the file holds now: another build may have written since it was read."""
        from filelock import FileLock

        mine = {**self._measured, key: self._measured.get(key, Measured()).followed_by(one)}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock"):
                theirs = load(self._path)
                merged = {**theirs, key: theirs.get(key, Measured()).followed_by(one)}
                save(self._path, merged)
        except OSError:
            self._measured = mine
            raise
        return merged


def factors(measured: Mapping[str, Measured], prior: Mapping[str, Prediction]) -> Factors:
    """Return by how much this machine differs from the prior, by the keys that were measured.

    Of CPU seconds the median of the ratios, of bytes the highest; that is less than 1 only where ENOUGH units were
    measured. Kept between FASTEST and SLOWEST.
    """
    tools: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    bytes_: dict[str, list[float]] = {}
    for key in measured.keys() & prior.keys():
        expected, found, like = prior[key], measured[key].measured(), family(key)
        if expected.seconds > 0:
            tools.setdefault(_tool(key), []).append(found.seconds / expected.seconds)
            seconds.setdefault(like, []).append(found.seconds / expected.seconds)
        if expected.peak_bytes > 0:
            bytes_.setdefault(like, []).append(found.peak_bytes / expected.peak_bytes)
    return Factors(
        {tool: _bounded(statistics.median(found)) for tool, found in tools.items()},
        {like: _bounded(statistics.median(found)) for like, found in seconds.items()},
        {like: _bounded(max(found if len(found) >= ENOUGH else (*found, 1.0))) for like, found in bytes_.items()},
    )


def _bounded(factor: float) -> float:
    return min(max(factor, FASTEST), SLOWEST)


def _tool(key: str) -> str:
    """Return the program of a step's key; "" for a whole unit."""
    _, found, label = key.rpartition(SEPARATOR)
    return label.split(" ")[0] if found else ""

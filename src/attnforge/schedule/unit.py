"""Predicts the jobs of a unit for estimates, before nvcc is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

from attnforge.model.cost import Prediction
from attnforge.model.parts import is_part
from attnforge.schedule.reservation import mean_reserved
from attnforge.schedule.scheduler import Job
from attnforge.schedule.simulate import Trial

OPENING = Prediction(0.2, 10**8)
"""Looking into the cache and nvcc --dryrun (measured: 50 ms and 60 MB)."""

# What nvcc's steps read of one another, as compile/nvcc/steps.py reads it from nvcc. "*": of the same architecture,
# or of each where the step is there once.
_AFTER: Mapping[str, tuple[str, ...]] = {
    "preprocess": (),
    "cudafe++": ("preprocess",),
    "cicc": ("preprocess *",),
    "ptxas": ("cicc *",),
    "fatbinary": ("ptxas *",),
    "compile": ("cudafe++", "fatbinary"),
}


def needs_of(label: str, labels: Mapping[str, object]) -> tuple[str, ...]:
    """Return which of a unit's steps have to be done before one of them, by their labels."""
    tool, _, code = label.partition(" ")
    if tool == "ptxas" and f"cicc {code}" not in labels:
        parts = tuple(other for other in labels if other.startswith(f"cicc {code} "))
        if parts:
            # cicc runs once for each part of the unit, and all that ptxas reads is put together.
            return parts
        # One cicc serves several architectures.
        code = ""
    wanted = [need.replace("*", code) if code else need for need in _AFTER.get(tool, ())]
    return tuple(other for other in labels if any(_matches(other, need) for need in wanted))


def _matches(label: str, need: str) -> bool:
    return label.startswith(need[:-1]) if need.endswith("*") else label == need


def tails_of(steps: Mapping[str, Prediction]) -> dict[str, float]:
    """Return for each step the seconds of the longest chain of steps that waits for it."""
    after = _followers(tuple(steps))

    @cache
    def tail(label: str) -> float:
        return max((steps[other].seconds + tail(other) for other in after[label]), default=0.0)

    return {label: tail(label) for label in steps}


# Units of a kind have the same steps, so a plan asks the same few questions hundreds of times.
@lru_cache(maxsize=256)
def _needs(labels: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    there = dict.fromkeys(labels)
    return {label: needs_of(label, there) for label in labels}


@lru_cache(maxsize=256)
def _followers(labels: tuple[str, ...]) -> Mapping[str, tuple[str, ...]]:
    needs = _needs(labels)
    return {label: tuple(other for other in labels if label in needs[other]) for label in labels}


def length_of(steps: Mapping[str, Prediction]) -> float:
    """Return the seconds that a unit takes in one slot; one that is compiled in parts takes several at once."""
    if any(is_part(label) for label in steps):
        return chain_of(steps)
    return sum(step.seconds for step in steps.values())


def chain_of(steps: Mapping[str, Prediction]) -> float:
    """Return the seconds of the longest chain of steps that wait for one another."""
    return max((steps[label].seconds + tail for label, tail in tails_of(steps).items()), default=0.0)


def steps_of(name: str, steps: Mapping[str, Prediction]) -> tuple[Trial, ...]:
    """Return the jobs of a unit that was opened; ``steps`` by their labels."""
    needs, tails = _needs(tuple(steps)), tails_of(steps)
    return tuple(
        Trial(
            Job(
                f"{name} {label}",
                step.seconds,
                step.peak_bytes,
                frozenset(f"{name} {need}" for need in needs[label]),
                tails[label],
                late_bytes=step.late_bytes,
            ),
            step,
        )
        for label, step in steps.items()
    )


def unit_of(name: str, steps: Mapping[str, Prediction]) -> Trial:
    """Return the first job of a unit. One of several steps is opened first, and its steps are known then."""
    if len(steps) == 1:
        (step,) = steps.values()
        return Trial(Job(name, step.seconds, step.peak_bytes, rank=1, late_bytes=step.late_bytes), step)
    mean = mean_reserved(list(steps.values()))
    first = Job(f"{name} open", OPENING.seconds, OPENING.peak_bytes, tail=length_of(steps), rank=1, mean_bytes=mean)
    return Trial(first, OPENING, steps_of(name, steps))

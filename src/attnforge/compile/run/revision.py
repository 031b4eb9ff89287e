"""Corrects the predictions of waiting jobs after similar ones were measured."""

from __future__ import annotations

from collections.abc import Iterable

from attnforge.compile.nvcc.labels import step_labels
from attnforge.compile.run.forecast import Costs, forecast, predict
from attnforge.compile.run.work import OPEN, WHOLE, Task
from attnforge.model.cost import Prediction


def revised(tasks: Iterable[Task], costs: Costs) -> tuple[dict[str, Prediction], dict[str, float]]:
    """Return the new predictions of those tasks that have one, and the new tails of those with another, by their ids.

    Of a unit that was not opened all that waits for its first job is corrected. One that was killed keeps the larger
    reservation that it was given.
    """
    predictions: dict[str, Prediction] = {}
    tails: dict[str, float] = {}
    whole: dict[tuple[str, ...], Prediction] = {}
    for task in tasks:
        unit = task.work.unit
        if task.label in (OPEN, WHOLE):
            # Units of one key and one list of steps are alike: a package may have thousands.
            like = (unit.cost_key or unit.output, *step_labels(unit))
            found = whole[like] if like in whole else whole.setdefault(like, forecast(unit, costs))
        else:
            found = predict(unit, task.label, costs)
        if task.label == OPEN:
            if task.tail != found.seconds:
                tails[task.id] = found.seconds
        elif not task.kills and task.predicted != found:
            predictions[task.id] = found
    return predictions, tails

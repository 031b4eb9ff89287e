"""Collects the decisions of one resolution. The only thing in this package that changes while it is used."""

from __future__ import annotations

from collections.abc import Iterable

from attnforge.model.plan import BuildPlan, Decision, Estimate, PlanWarning, Rejected, Resolution
from attnforge.model.target import Gpu


class Notes:
    """Decisions and warnings in the order in which they were made."""

    def __init__(self) -> None:
        self._decisions: list[Decision] = []
        self._warnings: list[PlanWarning] = []

    def decide(self, subject: str, choice: str, reason: str, rejected: Iterable[tuple[str, str]] = ()) -> None:
        """Note a decision; ``rejected`` are pairs of choice and reason."""
        turned_down = tuple(Rejected(choice=other, reason=why) for other, why in rejected)
        self._decisions.append(Decision(subject=subject, choice=choice, reason=reason, rejected=turned_down))

    def warn(self, subject: str, message: str, hint: str = "", link: str = "") -> None:
        """Note something that does not stop the build."""
        self._warnings.append(PlanWarning(subject=subject, message=message, hint=hint, link=link))

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What was decided so far."""
        return tuple(self._decisions)

    @property
    def warnings(self) -> tuple[PlanWarning, ...]:
        """What was warned of so far."""
        return tuple(self._warnings)

    def resolution(
        self, plan: BuildPlan, estimate: Estimate, gpus: tuple[Gpu, ...] = (), environment: str = ""
    ) -> Resolution:
        """Return a plan with all decisions and warnings."""
        return Resolution(
            plan=plan,
            gpus=gpus,
            environment=environment,
            decisions=self.decisions,
            warnings=self.warnings,
            estimate=estimate,
        )

"""Whether a wheel is what was planned: the audit at the end of a build, and what follows from it."""

from __future__ import annotations

import shutil

from attnforge.audit.wheel import audit_wheel
from attnforge.errors import WheelError
from attnforge.model.audit import AuditReport, Expected
from attnforge.model.plan import BuildPlan
from attnforge.model.recipe import Recipe
from attnforge.provision.environment import BuildEnvironment
from attnforge.workflow.artifacts import Packed
from attnforge.workflow.before import WHEELS
from attnforge.workflow.job import Context
from attnforge.workflow.pairs import PairEnvironments


def audit_packed(context: Context) -> AuditReport:
    """Audit the wheel. Of a universal one, the symbols of the pairs that this job made are checked."""
    job, wheel = context.job, context.of(Packed).wheel
    recipe, expected = job.recipe, expected_of(job.plan, job.recipe)
    if job.plan.is_universal:
        environments = context.of(PairEnvironments)
        sites, libraries = environments.sites(job.pairs), environments.libraries(job.pairs)
        return audit_wheel(wheel, sites=sites, libraries=libraries, recipe=recipe, expected=expected)
    environment = context.of(BuildEnvironment)
    site = environment.site_packages
    return audit_wheel(wheel, torch_site=site, libraries=environment.libraries, recipe=recipe, expected=expected)


def is_bad(report: AuditReport) -> bool:
    """Say whether a wheel must not be delivered."""
    return report.exit_code == WheelError.exit_code


def refuse_bad(context: Context) -> None:
    """Raise WheelError where the audit found the wheel bad."""
    report = context.of(AuditReport)
    if is_bad(report):
        raise bad_wheel(report)


def discard_bad(context: Context) -> None:
    """Do the same, and remove the bad wheel: no later build of the plan may take it for a finished one."""
    if is_bad(context.of(AuditReport)):
        shutil.rmtree(context.job.folder / WHEELS, ignore_errors=True)
    refuse_bad(context)


def bad_wheel(report: AuditReport, so: str = "was not delivered") -> WheelError:
    """Return the error for a wheel that the audit found bad; ``so`` is what came of that."""
    errors = [finding for finding in report.findings if finding.severity.value == "error"]
    return WheelError(
        f"the wheel {report.wheel} is bad and {so}",
        why="; ".join(": ".join(filter(None, (one.subject, one.seen, one.means))) for one in errors),
        hint=errors[0].hint if errors else "",
        link=errors[0].link if errors else "",
    )


def expected_of(plan: BuildPlan, recipe: Recipe) -> Expected:
    """Return what a plan says that its wheel has."""
    target = plan.target.architectures
    code = recipe.code_of(plan.version, target) if plan.is_compiled else {}
    return Expected(
        architectures=tuple(one.sm for one in target) if plan.is_compiled else (),
        modules=tuple(code),
        code=code,
        alike=not recipe.unit_architectures,
        outside=recipe.outside,
        python="py3" if plan.is_universal else plan.target.abi_tag,
    )

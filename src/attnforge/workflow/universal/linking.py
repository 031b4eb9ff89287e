"""The linker of a pair's modules, and the checks that come before any kernel is compiled."""

from __future__ import annotations

from pathlib import Path

from attnforge import process
from attnforge.link.linker import Linker
from attnforge.workflow.answers import answered, other_layout
from attnforge.workflow.artifacts import Parts, SourceTree
from attnforge.workflow.inputs import Inputs, link_folder
from attnforge.workflow.job import Context, Job
from attnforge.workflow.pairs import PairEnvironments, of_pair
from attnforge.workflow.providing import inputs_with


def linker_of(job: Job, inputs: Inputs) -> Linker:
    """Return what links the modules of one pair."""
    stub, _ = link_folder(job.machine, inputs, job.generated)
    environ = process.base_environment(job.machine.environ)
    return Linker(inputs.compiler.path, _libraries(inputs), stub, environ, job.log)


def _libraries(inputs: Inputs) -> tuple[Path, ...]:
    home, site = inputs.toolchain.home, inputs.environment.site_packages
    return (home / "lib64", site / "torch" / "lib", site / "torch.libs", *sorted(site.glob("nvidia/*/lib")))


def prepare_pairs(context: Context) -> None:
    """Provide what pairs need and check that they go together, before kernels are compiled.

    Each PyTorch has to give the same answers to the recipe's questions: those of the wheel that is extended, else those
    of the first. HostError or BuildError.
    """
    job, source = context.job, context.of(SourceTree).folder
    environments, parts = context.of(PairEnvironments), context.find(Parts)
    wanted = parts.answers if parts else None
    first = inputs_with(context, source, environments.of(job.pairs[0]))
    linker_of(job, first).check(job.folder)
    for pair in job.pairs:
        inputs, plan = inputs_with(context, source, environments.of(pair)), job.plan.at(pair)
        given = answered(job.machine, plan, job.recipe, inputs, job.generated)
        if wanted is not None and given != wanted:
            raise of_pair(pair, other_layout(plan, job.recipe))
        wanted = given

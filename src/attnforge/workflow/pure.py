"""Builds the wheel of a pure Python package: upstream's own build, with no seat, no toolchain and no PyTorch."""

from __future__ import annotations

import os
from pathlib import Path

from attnforge import process
from attnforge.errors import BuildError
from attnforge.process.guard import temporary_folder
from attnforge.provision.bytecode import UNWRITTEN
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.gpus import without_pip
from attnforge.workflow.artifacts import PureWheel, SourceTree
from attnforge.workflow.installers import refuse_installers
from attnforge.workflow.job import Context
from attnforge.workflow.upstream import FROM_SOURCE, REPRODUCIBLE, build_wheel
from attnforge.workflow.variables import stated_version

_ANYWHERE = "-none-any.whl"


def build_pure(context: Context) -> PureWheel:
    """Build the wheel of an unpacked source in the folder ``upstream`` of a job.

    Raises BuildError where upstream's build fails. Also where it made a wheel for one Python or platform: then the
    recipe is wrong, since the build compiled something, with a compiler that no plan pins.
    """
    job, source, python = context.job, context.of(SourceTree).folder, context.of(BuildEnvironment).python
    environ = job.machine.environ
    searched = (str(refuse_installers(job.folder / "programs")), str(python.parent), "/usr/bin", "/bin")
    variables = {
        **process.base_environment(environ),
        **FROM_SOURCE,
        **dict(job.plan.settings),
        **stated_version(job.plan),
        "PATH": os.pathsep.join(searched),
        **REPRODUCIBLE,
        **UNWRITTEN,
        **without_pip(),
    }
    with temporary_folder("attnforge-", Path(environ["TMPDIR"]) if environ.get("TMPDIR") else None) as temporary:
        variables["TMPDIR"] = str(temporary)
        wheel = build_wheel(source, python, variables, None, job.folder, job.log)
    if not wheel.name.endswith(_ANYWHERE):
        raise BuildError(
            f"upstream's build made {wheel.name}, and its recipe says that it is pure Python",
            why="the wheel is for one Python or platform, so something was compiled that the plan does not pin",
            hint="take `compiled = false` out of the recipe's release",
        )
    return PureWheel(wheel)

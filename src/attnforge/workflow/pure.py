"""Builds the wheel of a pure Python package: upstream's own build, with no seat, no toolchain and no PyTorch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from attnforge import process
from attnforge.errors import BuildError
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.gpus import without_pip
from attnforge.workflow.installers import refuse_installers
from attnforge.workflow.upstream import FROM_SOURCE, REPRODUCIBLE, build_wheel

_ANYWHERE = "-none-any.whl"


def build_pure(
    source: Path,
    environment: BuildEnvironment,
    settings: Mapping[str, str],
    environ: Mapping[str, str],
    folder: Path,
    log: IO[str],
) -> Path:
    """Build the wheel of an unpacked source and return its path, in ``folder``/upstream.

    Raises BuildError where upstream's build fails. Also where it made a wheel for one Python or platform: then the
    recipe is wrong, since the build compiled something, with a compiler that no plan pins.
    """
    installers = refuse_installers(folder / "programs")
    searched = (str(installers), str(environment.python.parent), "/usr/bin", "/bin")
    variables = {
        **process.base_environment(environ),
        **FROM_SOURCE,
        **settings,
        "PATH": os.pathsep.join(searched),
        **REPRODUCIBLE,
        **without_pip(),
    }
    with tempfile.TemporaryDirectory(prefix="attnforge-", dir=environ.get("TMPDIR")) as temporary:
        variables["TMPDIR"] = temporary
        wheel = build_wheel(source, environment.python, variables, None, folder, log)
    if not wheel.name.endswith(_ANYWHERE):
        raise BuildError(
            f"upstream's build made {wheel.name}, and its recipe says that it is pure Python",
            why="the wheel is for one Python or platform, so something was compiled that the plan does not pin",
            hint="take `compiled = false` out of the recipe's release",
        )
    return wheel

"""A job whose events and log are kept, for tests of single stages."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnforge.model.events import Event, Message, StageFinished, StageStarted
from attnforge.model.host import HostCompiler
from attnforge.model.plan import BuildPlan
from attnforge.model.request import Request
from attnforge.provision.environment import BuildEnvironment
from attnforge.provision.toolchain import Toolchain
from attnforge.recipes.catalogue import find_recipe
from attnforge.workflow.inputs import Inputs
from attnforge.workflow.job import Job, Limits
from attnforge.workflow.machine import Machine
from attnforge.workflow.sources.kinds import Located, Sdist


@dataclass
class Bench:
    """A folder to work in, and all that was reported and logged."""

    folder: Path
    plan: BuildPlan
    events: list[Event] = field(default_factory=list)
    log: io.StringIO = field(default_factory=io.StringIO)

    def job(self, **changes: Any) -> Job:
        """Return a job for the plan, with changes."""
        environ = {"HOME": str(self.folder), "ATTNFORGE_CACHE": str(self.folder / "cache"), "PATH": "/usr/bin:/bin"}
        values: dict[str, Any] = {
            "machine": Machine(environ),
            "plan": self.plan,
            "located": Located(
                find_recipe(self.plan.package),
                self.plan.version,
                Sdist(self.plan.source, self.plan.package, self.plan.version),
            ),
            "request": Request(package=self.plan.package),
            "toolchain": self.plan.toolchain,
            "folder": self.folder / "build",
            "out": self.folder / "dist",
            "observe": self.events.append,
            "log": self.log,
            "limits": Limits(4, 8_000_000_000),
            "started": 0.0,
            "pairs": self.plan.pairs,
            "further": self.plan.pairs[1:],
        }
        return Job(**{**values, **changes})

    def inputs(self, compiler: str = "/usr/bin/g++") -> Inputs:
        """Return what upstream's build would be given; none of it is there."""
        environment = BuildEnvironment(self.folder / "env/bin/python", self.folder / "env/site", "", ())
        toolchain = Toolchain(self.folder / "cuda", self.folder / "cuda/bin/nvcc", "13.0", "13.0.88", "system")
        host = HostCompiler(path=compiler, name="g++", version="12.2.0")
        return Inputs(self.folder / "source", toolchain, environment, host)

    @property
    def said(self) -> list[str]:
        """The messages so far."""
        return [event.text for event in self.events if isinstance(event, Message)]

    @property
    def stages(self) -> list[str]:
        """The stages that began (``> name``) and ended (``< name``)."""
        marks = {StageStarted: ">", StageFinished: "<"}
        return [
            f"{marks[type(event)]} {event.stage}"
            for event in self.events
            if isinstance(event, StageStarted | StageFinished)
        ]

"""The preliminary check: what a snapshot of the machine means for a build. Pure; host.probe takes the snapshot."""

from __future__ import annotations

from collections.abc import Iterable

from attnforge.errors import HostError, UncheckedError
from attnforge.host import checks_machine, checks_toolchain
from attnforge.model.finding import Finding, Severity
from attnforge.model.host import Active, Host


def examine(host: Host, target_cuda: str = "", active: Active | None = None) -> tuple[Finding, ...]:
    """Return every finding about a machine, in the order in which a person reads them.

    ``target_cuda`` is the toolkit that a build is for (``13.0``); "" where none is chosen yet, which leaves every
    toolkit that exists open. ``active`` is the environment that the user is in, None where none was looked for.
    """
    return (
        checks_machine.system(host),
        checks_machine.libc(host),
        checks_machine.cores(host),
        checks_machine.memory(host),
        *checks_machine.disks(host),
        checks_toolchain.toolkit(host, target_cuda),
        *checks_toolchain.toolkits(host),
        *checks_toolchain.compilers(host, target_cuda),
        checks_toolchain.python(host),
        checks_toolchain.uv(host),
        checks_toolchain.pip(host),
        checks_toolchain.git(host),
        checks_toolchain.torch(host, active or Active()),
        checks_machine.gpus(host),
        checks_machine.driver(host, target_cuda),
    )


def verdict(findings: Iterable[Finding]) -> int:
    """Return the exit code: of a bad environment if a finding is an error, of what could not be checked, else 0."""
    severities = {finding.severity for finding in findings}
    if Severity.ERROR in severities:
        return HostError.exit_code
    return UncheckedError.exit_code if Severity.UNCHECKED in severities else 0

"""Holds a plan against the combinations that are known to be bad."""

from __future__ import annotations

from attnforge.errors import RequestError
from attnforge.knowledge.advisories import advisories
from attnforge.model.target import Target
from attnforge.resolve.decisions import Notes


def apply_advisories(package: str, version: str, commit: str, target: Target, notes: Notes) -> None:
    """Warn of what is known to be bad; RequestError for what must not be built."""
    capabilities = tuple(gpu.capability for gpu in target.gpus)
    for advisory in advisories():
        if not advisory.concerns(package, version, target.torch, target.cuda, capabilities, commit):
            continue
        if advisory.severity == "error":
            raise RequestError(
                f"{package} {version} can't be built for this target: {advisory.message}",
                hint=advisory.hint,
                link=advisory.link,
            )
        notes.warn(advisory.id, advisory.message, advisory.hint, advisory.link)

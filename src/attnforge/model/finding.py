"""Findings about a machine or a wheel."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attnforge.model.base import Value


class Severity(StrEnum):
    """How bad a finding is. ``UNCHECKED`` says that it could not be checked, which is never good news."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    UNCHECKED = "unchecked"
    ERROR = "error"


class Finding(Value):
    """One observation: what was ``seen``, what it ``means``, and a ``hint``: the command or setting that fixes it."""

    code: str
    severity: Severity
    subject: str
    seen: str
    means: str = ""
    hint: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Topic:
    """What findings are about: it makes them with one code and one subject."""

    code: str
    subject: str

    def of(self, severity: Severity, seen: str, means: str = "", hint: str = "", link: str = "") -> Finding:
        """Return a finding of this severity."""
        return Finding(
            code=self.code, severity=severity, subject=self.subject, seen=seen, means=means, hint=hint, link=link
        )

    def ok(self, seen: str, means: str = "", link: str = "") -> Finding:
        """Return a finding of what is good."""
        return self.of(Severity.OK, seen, means, link=link)

    def info(self, seen: str, means: str = "", hint: str = "", link: str = "") -> Finding:
        """Return a finding of what is neither good nor bad."""
        return self.of(Severity.INFO, seen, means, hint, link)

    def warning(self, seen: str, means: str = "", hint: str = "", link: str = "") -> Finding:
        """Return a finding of what may be bad."""
        return self.of(Severity.WARNING, seen, means, hint, link)

    def unchecked(self, seen: str, means: str = "", hint: str = "", link: str = "") -> Finding:
        """Return a finding of what could not be checked."""
        return self.of(Severity.UNCHECKED, seen, means, hint, link)

    def error(self, seen: str, means: str = "", hint: str = "", link: str = "") -> Finding:
        """Return a finding of what is bad."""
        return self.of(Severity.ERROR, seen, means, hint, link)

"""What a look at a machine or a wheel found."""

from __future__ import annotations

from enum import StrEnum

from attnforge.model.base import Value


class Severity(StrEnum):
    """How bad a finding is. ``UNCHECKED`` says that it could not be looked at, which is never good news."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    UNCHECKED = "unchecked"
    ERROR = "error"


class Finding(Value):
    """One observation: ``state``, what was ``seen``, what it ``means`` and the command or setting that mends it."""

    code: str
    severity: Severity
    subject: str
    seen: str
    means: str = ""
    hint: str = ""
    link: str = ""

"""The errors that attnforge raises on purpose: one root, one class and exit code for each kind of failure."""

from __future__ import annotations


class AttnforgeError(Exception):
    """A failure whose cause is known.

    It says what happened (``what``), why (``why``) and the command or setting that mends it (``hint``); ``link`` is
    the thread or page that the diagnosis comes from. Anything else that escapes is our own fault and exits 1.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "", link: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.link = link

    def __str__(self) -> str:
        return "\n".join(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is said of it, each part with what it is: what happened, why, what mends it, where to read on."""
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.hint:
            parts.append(f"mend: {self.hint}")
        if self.link:
            parts.append(f"see: {self.link}")
        return tuple(parts)


class RequestError(AttnforgeError):
    """The request can't be met: an unknown name, an impossible target, a bad option. Exit 2."""

    exit_code = 2


class HostError(AttnforgeError):
    """The machine lacks something: a compiler, a toolkit, space, the network. Exit 3."""

    exit_code = 3


class BuildError(AttnforgeError):
    """The build itself failed: a compile, a link, upstream's setup.py. Exit 4."""

    exit_code = 4


class WheelError(AttnforgeError):
    """The wheel is bad: truncated, wrong architectures, unresolved symbols. Exit 5."""

    exit_code = 5


class UncheckedError(AttnforgeError):
    """Something that had to be checked could not be looked at. Exit 6, never 0."""

    exit_code = 6

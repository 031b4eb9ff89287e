"""The errors that attnforge raises: one base class, and one class with an exit code for each kind of failure."""

from __future__ import annotations


class AttnforgeError(Exception):
    """A failure with a known cause. Exit 1 where no subclass says otherwise.

    ``what`` happened, ``why`` it happened, ``hint`` is the command or setting that fixes it, ``link`` is the thread or
    page that explains it. All are texts; those that are not known are empty.
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
        """The parts of the message, in order: what happened, then ``why:``, ``hint:`` and ``see:`` where known."""
        labelled = (("why", self.why), ("hint", self.hint), ("see", self.link))
        return (self.what, *(f"{label}: {text}" for label, text in labelled if text))


EXIT_CODES = {
    0: "success",
    1: "a fault of attnforge itself; the message names a file to send",
    2: "the request is wrong or impossible: an unknown name, an unsupported target, a bad option",
    3: "the machine lacks something: a compiler, a toolkit, disk space, memory, the network",
    4: "the build failed",
    5: "the wheel is bad, or two wheels differ",
    6: "something could not be checked",
    129: "ended by SIGHUP: the terminal was closed",
    130: "interrupted by Ctrl-C",
    143: "ended by SIGTERM",
}
"""What each exit code of the program means."""


class RequestError(AttnforgeError):
    """The request is wrong or impossible: an unknown name, a bad option, an unsupported target. Exit 2."""

    exit_code = 2


class HostError(AttnforgeError):
    """The machine lacks something: a compiler, a toolkit, disk space, the network. Exit 3."""

    exit_code = 3


class BuildError(AttnforgeError):
    """The build failed: a compile, a link, upstream's setup.py. Exit 4."""

    exit_code = 4


class WheelError(AttnforgeError):
    """The wheel is bad: truncated, wrong architectures, undefined symbols. Exit 5."""

    exit_code = 5


class UncheckedError(AttnforgeError):
    """Something could not be checked that had to be. Exit 6, never 0."""

    exit_code = 6

"""The program ``attnforge``: finds the verb, runs it, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from attnforge.cli.streams import Output, out_of_memory, refused, whole
from attnforge.cli.terminal import Terminal
from attnforge.errors import EXIT_CODES, AttnforgeError, HostError, RequestError

if TYPE_CHECKING:
    from typing import TextIO

# Verb: its module in attnforge.cli, and what it does. Modules are imported only for the verb that runs.
VERBS = {
    "doctor": "check what this machine has for a build, what it lacks, and how to fix it",
    "packages": "list what can be built, from where, for which GPUs",
    "plan": "show what would be built and why, without building",
    "build": "build a wheel into dist/, audit it, and write a report beside it",
    "extend": "add a PyTorch or Python to a universal wheel, without compiling a kernel",
    "audit": "show what is in a wheel and what is wrong with it",
    "check": "check on the GPU of this machine that a wheel computes correct results",
    "bench": "measure how fast and how accurate wheels are on the GPU of this machine",
}


class Verb(Protocol):
    """The interface of a verb's module."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's own options."""
        ...

    def run(self, arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
        """Run the verb and return the exit code."""
        ...


_KEPT = "run the same command again: finished objects are kept"


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP ended the process. It cleans up as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def _heed_signals() -> None:
    """Make SIGTERM and SIGHUP clean up before they end the process, unless its parent ignores them.

    A second signal ends it at once.
    """

    def end(number: int, frame: object) -> None:
        for one in _ENDING:
            signal.signal(one, signal.SIG_DFL)
        raise Ended(number)

    for one in _ENDING:
        if signal.getsignal(one) is signal.SIG_DFL:
            signal.signal(one, end)


_ENDING = (signal.SIGTERM, signal.SIGHUP)


class _Parser(argparse.ArgumentParser):
    """A parser that raises RequestError (exit 2) with a suggestion."""

    def error(self, message: str) -> None:  # type: ignore[override]  # it raises, where argparse exits
        named = next((word.strip(":,") for word in message.split() if word.startswith("--")), "")
        actions = {option: action for action in self._actions for option in action.option_strings}
        near = get_close_matches(named.partition("=")[0], actions, n=1) if named else []
        hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help"
        if named in actions:
            hint = self._form(named, actions[named], message)
        elif owner := next(_verbs_with(named.partition("=")[0]), ""):
            hint = f"`attnforge {owner}` takes it: attnforge {owner} --help"
        raise RequestError(message, hint=hint)

    def _form(self, option: str, action: argparse.Action, message: str) -> str:
        """Return the correct form of a known option that was written wrong."""
        if "ignored explicit argument" in message:
            return f"{option} takes no value"
        value = action.metavar if isinstance(action.metavar, str) else "VALUE"
        return f"{option} {value}: {action.help}; write a value that begins with a dash as {option}={value}"


def _verbs_with(option: str) -> Iterator[str]:
    """Yield the verbs that have this option."""
    for name in VERBS if option else ():
        with suppress(ImportError):
            if option in parser_for(name)[0]._option_string_actions:
                yield name


def parser_for(name: str) -> tuple[argparse.ArgumentParser, Verb]:
    """Return the parser and the module of a verb."""
    verb = cast(Verb, import_module(f"attnforge.cli.{name}"))
    told = f"{VERBS[name][0].upper()}{VERBS[name][1:]}."
    parser = _Parser(prog=f"attnforge {name}", description=told, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verb.add_options(parser)
    return parser, verb


def usage() -> str:
    """Return the text of ``attnforge --help``."""
    width = max(map(len, VERBS))
    lines = [
        "usage: attnforge VERB ...",
        "",
        "Builds and checks wheels of FlashAttention and other CUDA extensions, from upstream's own sources.",
        "",
        *(f"  {name:<{width}}  {what}" for name, what in VERBS.items()),
        "",
        "  attnforge VERB --help lists the options of a verb. For example:",
        "",
        "  attnforge build flash-attn --gpu H100 --profile diffusion --head-dims 64",
        "",
        "exit codes:",
        *(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items()),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Run one command and return its exit code. Only ``VERB --help`` raises SystemExit, because argparse does."""
    output = Output(out)
    shown, told = Terminal(cast("TextIO", output)), Terminal(cast("TextIO", Output(err)))
    try:
        code = _dispatch(arguments, environ, shown)
        output.flush()
        return code
    except BrokenPipeError:
        # The reader of our output went away (`attnforge ... | head`), and with it whoever would see the rest.
        return 130
    except KeyboardInterrupt as reason:
        stopped = AttnforgeError(str(reason) or "interrupted", hint=_KEPT)
        stopped.exit_code = reason.exit_code if isinstance(reason, Ended) else 130
        return _tell(stopped, arguments, output, told)
    except Exception as error:
        if "--debug" in arguments:
            import traceback

            told.text(traceback.format_exc())
        return _tell(_known(error, arguments, environ), arguments, output, told)
    finally:
        if output.has_failed and sys.stdout is out:
            sys.stdout = None  # Python would write again as it exits, and change the exit code.


def _known(error: Exception, arguments: Sequence[str], environ: Mapping[str, str]) -> AttnforgeError:
    """Return an error with a known cause. For any other, write a crash file and return our own fault (exit 1)."""
    if isinstance(error, AttnforgeError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return refused(error)
    if isinstance(error, MemoryError):
        return out_of_memory()
    from attnforge.cli.crash import write_crash

    try:
        hint = f"please send {write_crash(arguments, environ)}"
    except OSError:
        hint = "please send the output of the same command with --debug"
    return AttnforgeError("this is a fault of attnforge itself", hint=hint)


def _tell(error: AttnforgeError, arguments: Sequence[str], out: Output, err: Terminal) -> int:
    if "--json" in arguments and not out.has_failed:
        from attnforge.cli.show import error_document

        with suppress(AttnforgeError, OSError):
            Terminal(cast("TextIO", out)).json(error_document(error), indent=None)
    with suppress(AttnforgeError, OSError):
        err.error(error, "attnforge")
    return error.exit_code


def _dispatch(arguments: Sequence[str], environ: Mapping[str, str], out: Terminal) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        out.text(usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from attnforge.version import BUILDER

        out.lines([BUILDER])
        return 0
    name = arguments[0]
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        raise RequestError(f"there is no verb {name!r}", hint=f"attnforge {near[0] if near else '--help'}")
    parser, verb = parser_for(name)
    return verb.run(parser.parse_args(list(arguments[1:])), environ, out)


def run() -> None:
    """Run as the installed program."""
    err = sys.stderr if sys.stderr is not None else Path(os.devnull).open("w")  # noqa: SIM115  # to the end
    if sys.stdout is None:
        closed = HostError("standard output is closed", hint="give it a file: >FILE, or >/dev/null")
        sys.exit(_tell(closed, (), Output(err), Terminal(err)))
    sys.stdout = whole(sys.stdout)
    _heed_signals()
    sys.exit(main(sys.argv[1:], os.environ, sys.stdout, err))

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
from attnforge.errors import AttnforgeError, HostError, RequestError

if TYPE_CHECKING:
    from typing import TextIO

# Verb: its module in attnforge.cli, and what it does. Modules are imported only for the verb that runs.
VERBS = {
    "doctor": "the preliminary check: what this machine has, what it lacks, and what fixes it",
    "packages": "what can be built, from where, for which GPUs",
    "plan": "what would be built and why; nothing is done",
    "build": "the wheel in dist/, audited, with a report beside it",
    "extend": "one more PyTorch or Python for a universal wheel; no kernel is compiled",
    "audit": "what is in a wheel, and what is wrong with it",
    "check": "whether a wheel computes the right thing on the GPU of this machine",
    "bench": "how fast wheels compute on this machine, how right, and which is faster",
}


class Verb(Protocol):
    """What the module of a verb has."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's own options."""
        ...

    def run(self, arguments: argparse.Namespace, environ: Mapping[str, str], out: Terminal) -> int:
        """Run the verb and return the exit code."""
        ...


_KEPT = "run the same command again: what was finished is kept"


class Ended(KeyboardInterrupt):
    """The process was told to end by a signal other than Ctrl-C's; it ends in the same way."""

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def _heed_signals() -> None:
    """Clean up and say what is kept where SIGTERM or SIGHUP ends the process, unless whoever started it ignores them.

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
    """A parser whose errors are ours: exit 2, with a suggestion."""

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
        """Return how an option is written that is known, and was written wrong."""
        if "ignored explicit argument" in message:
            return f"{option} stands without a value"
        value = action.metavar if isinstance(action.metavar, str) else "VALUE"
        return f"{option} {value}: {action.help}; a value that begins with a dash is written {option}={value}"


def _verbs_with(option: str) -> Iterator[str]:
    """Yield the verbs that have an option of that name."""
    for name in VERBS if option else ():
        with suppress(ImportError):
            if option in parser_for(name)[0]._option_string_actions:
                yield name


def parser_for(name: str) -> tuple[argparse.ArgumentParser, Verb]:
    """Return the parser and the module of a verb."""
    verb = cast(Verb, import_module(f"attnforge.cli.{name}"))
    told = f"{VERBS[name][0].upper()}{VERBS[name][1:]}."
    parser = _Parser(prog=f"attnforge {name}", description=told, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    verb.add_options(parser)
    return parser, verb


def usage() -> str:
    """Return the text of ``attnforge --help``."""
    width = max(map(len, VERBS))
    lines = [
        "usage: attnforge VERB ...",
        "",
        "Wheels of FlashAttention and other CUDA extensions for your GPUs, from upstream's own sources, proven.",
        "",
        *(f"  {name:<{width}}  {what}" for name, what in VERBS.items()),
        "",
        "  attnforge VERB --help tells a verb's options. For example:",
        "",
        "  attnforge build flash-attn --gpu H100 --profile diffusion --head-dims 64",
        "",
        "exit codes: 0 good; 1 our own fault; 2 a request that can't be met; 3 the environment; 4 the build failed;",
        "            5 the wheel is bad; 6 could not check; 130 interrupted; 129, 143 ended by SIGHUP, SIGTERM",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Run one command and return its exit code. Only ``VERB --help`` leaves by SystemExit, as argparse does it."""
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
            sys.stdout = None  # Python would try again at its end, and exit with a code of its own.


def _known(error: Exception, arguments: Sequence[str], environ: Mapping[str, str]) -> AttnforgeError:
    """Return an error with its cause; where that is not known, our own fault, and a file with what happened."""
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
        hint = "please send what the same command says with --debug"
    return AttnforgeError("this is our own fault", hint=hint)


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

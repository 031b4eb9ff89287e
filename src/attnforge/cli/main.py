"""The program ``attnforge``: finds the verb, runs it, turns errors into messages and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from attnforge.cli.terminal import Terminal
from attnforge.errors import AttnforgeError, HostError, RequestError

if TYPE_CHECKING:
    from typing import TextIO

# Verb: its module in attnforge.cli, and what it does. Modules are imported only for the verb that runs.
VERBS = {
    "doctor": "the preliminary check: what this machine has, what it lacks, and what mends it",
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


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours: exit 2, with a suggestion."""

    def error(self, message: str) -> None:  # type: ignore[override]  # it raises, where argparse exits
        unknown = [word for word in message.split() if word.startswith("--")]
        options = [option for action in self._actions for option in action.option_strings]
        near = get_close_matches(unknown[0], options, n=1) if unknown else []
        hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help"
        raise RequestError(message, hint=hint)


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
        "            5 the wheel is bad; 6 could not check; 130 interrupted",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str], environ: Mapping[str, str], out: TextIO, err: TextIO) -> int:
    """Run one command and return its exit code. Only ``VERB --help`` leaves by SystemExit, as argparse does it."""
    shown, told = Terminal(out), Terminal(err)
    try:
        return _dispatch(arguments, environ, shown)
    except AttnforgeError as error:
        if "--debug" in arguments:
            import traceback

            told.text(traceback.format_exc())
        return _tell(error, arguments, shown, told)
    except MemoryError:
        lacking = HostError("memory ran out", hint="a larger limit (ulimit -v, the container's memory)")
        return _tell(lacking, arguments, shown, told)
    except KeyboardInterrupt:
        stopped = AttnforgeError("interrupted", hint="run the same command again: what was finished is kept")
        stopped.exit_code = 130
        return _tell(stopped, arguments, shown, told)
    except BrokenPipeError:
        # The reader of our output went away (`attnforge ... | head`), and with it whoever would see the rest.
        sys.stdout = None
        return 130
    except Exception:
        from attnforge.cli.crash import write_crash

        crash = write_crash(arguments, environ)
        return _tell(AttnforgeError("this is our own fault", hint=f"please send {crash}"), arguments, shown, told)


def _tell(error: AttnforgeError, arguments: Sequence[str], out: Terminal, err: Terminal) -> int:
    if "--json" in arguments:
        from attnforge.cli.show import error_document

        out.json(error_document(error), indent=None)
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
    sys.exit(main(sys.argv[1:], os.environ, sys.stdout, sys.stderr))

"""The program beside a wheel (ongpu/child.py): started, asked, and started again after it died."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attnforge.ongpu
from attnforge import process
from attnforge.errors import HostError
from attnforge.ongpu.protocol import Error, Failed
from attnforge.workflow.trial import Trial

_PROGRAM = Path(attnforge.ongpu.__file__).with_name("child.py")

# Seconds for the program to start and import torch: a cold disk takes its time.
START_SECONDS = 300.0


class Child:
    """The program in a trial, started when it is first asked and again after it died."""

    def __init__(self, place: Trial) -> None:
        self._place = place
        self._command = process.Command((str(place.python), "-u", str(_PROGRAM)), place.folder, place.environ)
        self._running: process.Conversation | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, module: str, request: Mapping[str, object], timeout: float) -> Any:
        """Return the answer of a module of ongpu/ to a request, or ``Failed``; ongpu/protocol.py has their types.

        ``timeout`` is in seconds. Where the process or its GPU context is lost (``sticky``), the next request starts a
        new program. Raises HostError where it can't be started at all.
        """
        if self._running is None:
            self._start()
        found = self._asked(module, request, timeout)
        if found.get("error", {}).get("sticky"):
            self.stop()
        return found

    def stop(self) -> None:
        """End the program."""
        if self._running is not None:
            self._running.__exit__()
            self._running = None

    def _start(self) -> None:
        try:
            self._running = process.Conversation(self._command)
        except OSError as error:
            raise HostError(f"{self._place.python} can't be started", why=str(error)) from error
        place = {"search": [str(folder) for folder in self._place.search]}
        found = self._asked("about", {"do": "place", **place}, START_SECONDS)
        if "error" in found:
            self.stop()
            raise _unusable(self._place.python, found["error"])

    def _asked(self, module: str, request: Mapping[str, object], timeout: float) -> Any:
        assert self._running is not None
        line = json.dumps({"module": module, "request": dict(request)})
        try:
            return json.loads(self._running.ask(line, timeout))
        except TimeoutError:
            code, kind, text = self._running.end(grace=0), "Hang", f"no answer within {timeout:g} seconds"
        except EOFError:
            code = self._running.end()
            kind, text = "Crash", f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = self._running.last_words()
        self.stop()
        return Failed(error={"type": kind, "text": text, "trace": words, "sticky": True, "code": code})


def _unusable(python: Path, error: Error) -> HostError:
    lines = [line for line in str(error.get("trace", "")).splitlines() if line.strip()]
    return HostError(
        f"{python} has no PyTorch that can be imported",
        why=str(error["text"]) if error["type"] not in ("Crash", "Hang") else " ".join((error["text"], *lines[-2:])),
        hint="name an interpreter with PyTorch: --python PATH; or leave it out, to have an environment made",
    )

"""Output streams, and errors of the system as messages."""

from __future__ import annotations

import io
import os
from typing import Any, TextIO

from attnforge.errors import AttnforgeError, HostError


class Output:
    """A stream whose failures are HostErrors, and that writes what its encoding lacks as ``\\uXXXX``.

    A closed pipe stays a BrokenPipeError: no one would see a message.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.has_failed = False

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _failed(self, error: OSError | ValueError) -> Exception:
        self.has_failed = True
        if isinstance(error, BrokenPipeError):
            return error
        why = (error.strerror if isinstance(error, OSError) else "") or str(error)
        return HostError("the output can't be written", why=why, hint="write it to another file, or free space there")


def whole(stream: TextIO) -> TextIO:
    """Return a stream that writes all of a text or fails.

    Under PYTHONUNBUFFERED Python's own stream may write a part and report nothing.
    """
    raw = getattr(stream, "buffer", None)
    if not isinstance(raw, io.RawIOBase):
        return stream
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, stream.encoding, stream.errors, write_through=True, line_buffering=True)


def refused(error: OSError) -> AttnforgeError:
    """Return an error of the system, in the system's words, as a fault of the environment (exit 3)."""
    what = error.strerror or str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return HostError(
        f"{' and '.join(names)}: {what}" if names else what, hint="run the command with --debug to see where"
    )


def out_of_memory() -> AttnforgeError:
    """Return the error for a failed allocation of attnforge itself."""
    return HostError("attnforge itself ran out of memory", hint="end other programs, or raise the limit (ulimit -v)")

"""Reads what a wheel of ours says about itself, so that any part can ask it."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path

from pydantic import ValidationError

from attnforge.errors import RequestError, WheelError
from attnforge.model.universal import DOCUMENT, Universal

_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)
_HINT = "build the wheel again; one that a newer attnforge made needs that version or a later one"


def read_universal(wheel: Path) -> Universal | None:
    """Return what a universal wheel holds; None for a wheel that is none.

    Raises RequestError where there is no such file, WheelError where it or the document in it is damaged.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(f".dist-info/{DOCUMENT}")]
            return parse_universal(archive.read(names[0]), wheel.name) if names else None
    except FileNotFoundError as error:
        raise RequestError(f"there is no file {wheel}", hint="name a wheel: dist/NAME.whl") from error
    except _UNREADABLE as error:
        raise WheelError(f"{wheel.name} can't be read as a zip archive", why=str(error), hint=_HINT) from error


def parse_universal(document: bytes | str, wheel: str) -> Universal:
    """Read the document of a universal wheel, whose name is for the message: WheelError where it is none."""
    try:
        return Universal.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
        raise WheelError(f"{wheel}: {DOCUMENT} can't be read", why=why, hint=_HINT) from error

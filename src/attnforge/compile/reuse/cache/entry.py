"""The format of an entry: the outputs of one compile step in one blob that is bound to its key.

    magic, version, header length | header (JSON) | Zstandard frame of all outputs in order | digest

The digest is over the entry's key and all bytes before the digest. With a secret it is an HMAC: someone who can write
to a shared store but does not know the secret can't make a valid entry. Nothing is unpickled or run, and nothing is
unpacked beyond the sizes in the header.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

MAX_CONTENT_BYTES = 2**30  # of all outputs of a step; a merged unit's PTX has some tens of megabytes
MAX_ENTRY_BYTES = MAX_CONTENT_BYTES + 2**24  # what can't be compressed grows by its frame and the header

_PREFIX = struct.Struct(">6sHI")
_MAGIC = b"AFSTEP"
_VERSION = 1
_DIGEST_BYTES = 32
_LEVEL = 3  # twice as small costs ten times the time, and a look-up waits for what a worker compresses
_KEY = re.compile(r"[0-9a-f]{64}")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SALT = b"attnforge step cache 1"


class BadEntryError(ValueError):
    """A blob that is not an entry of the requested key; the text says why."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What binds entries to their keys: with a secret, only who knows it can make one.

    The path of an entry depends on the secret too, so that teams with different secrets (or none) can share a store
    without overwriting or refusing each other's entries.
    """

    _secret: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, secret: bytes) -> Seal:
        """Return the seal of a secret, b"" for none. Takes some 50 ms, so that a short secret is costly to guess."""
        return cls(hashlib.scrypt(secret, salt=_SALT, n=2**14, r=8, p=1, dklen=32) if secret else b"")

    def path(self, key: str) -> str:
        """Return where the entry of a key is in a store: ``ab/cdef...``. ValueError unless it is a hex SHA-256."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"a key is a hex SHA-256 in lower case, not {key!r}")
        name = hmac.new(self._secret, b"path " + key.encode(), "sha256").hexdigest() if self._secret else key
        return f"{name[:2]}/{name[2:]}"

    def digest(self, key: str, parts: Iterable[bytes | memoryview]) -> bytes:
        """Return the digest of an entry's bytes for that key."""
        digest = hmac.new(self._secret, digestmod="sha256") if self._secret else hashlib.sha256()
        for part in (key.encode(), *parts):
            digest.update(part)
        return digest.digest()


def pack(key: str, outputs: Mapping[str, bytes], seal: Seal) -> bytes:
    """Return the entry of a step's outputs, by role. ValueError for no outputs, too many bytes or a bad role name."""
    import zstandard

    _check_outputs(outputs)
    content = zstandard.ZstdCompressor(level=_LEVEL).compress(b"".join(outputs.values()))
    header = json.dumps(
        {
            "key": key,
            "outputs": [
                {"role": role, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for role, data in outputs.items()
            ],
            "compressed": len(content),
        }
    ).encode("ascii")
    parts = (_PREFIX.pack(_MAGIC, _VERSION, len(header)), header, content)
    return b"".join((*parts, seal.digest(key, parts)))


def _check_outputs(outputs: Mapping[str, bytes]) -> None:
    total = sum(map(len, outputs.values()))
    if not outputs or total > MAX_CONTENT_BYTES:
        raise ValueError(f"{len(outputs)} outputs with {total} bytes make no entry")
    for role in outputs:
        if not _ROLE.fullmatch(role):
            raise ValueError(f"{role!r} is not a name for an output")


def unpack(key: str, blob: bytes, seal: Seal) -> dict[str, bytes]:
    """Return the outputs of an entry, by role; BadEntryError unless it is whole, of that key and under that seal."""
    view = memoryview(blob)
    if len(view) < _PREFIX.size + _DIGEST_BYTES:
        raise BadEntryError("it is too short")
    magic, version, header_size = _PREFIX.unpack_from(view)
    if (magic, version) != (_MAGIC, _VERSION):
        raise BadEntryError("it is not an entry of this version")
    # Before anything of it is parsed. One that was truncated, changed or moved to another key ends here.
    body, digest = view[:-_DIGEST_BYTES], view[-_DIGEST_BYTES:]
    if not hmac.compare_digest(seal.digest(key, (body,)), digest):
        raise BadEntryError("its digest is not that of its key, its content and this secret")
    outputs, compressed = _parse_header(key, bytes(body[_PREFIX.size :][:header_size]))
    content = body[_PREFIX.size + header_size :]
    if len(content) != compressed:
        raise BadEntryError("its content is not as long as it states")
    return _unpack_content(outputs, content)


@dataclass(frozen=True, slots=True)
class _Output:
    role: str
    size: int
    sha256: str


def _parse_header(key: str, header: bytes) -> tuple[list[_Output], int]:
    try:
        document = json.loads(header)
        outputs = [_parse_output(item) for item in document["outputs"]]
        of, compressed = document["key"], document["compressed"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadEntryError(f"its header can't be read ({type(error).__name__})") from None
    if of != key:
        raise BadEntryError("it is of another key")
    if not outputs or len({output.role for output in outputs}) != len(outputs):
        raise BadEntryError("it has no outputs, or two of one name")
    if sum(output.size for output in outputs) > MAX_CONTENT_BYTES:
        raise BadEntryError(f"it states more than {MAX_CONTENT_BYTES} bytes")
    return outputs, compressed


def _parse_output(item: dict[str, Any]) -> _Output:
    output = _Output(item["role"], item["size"], item["sha256"])
    if not _ROLE.fullmatch(output.role) or type(output.size) is not int or output.size < 0:
        raise ValueError(output.role)
    return output


def _unpack_content(outputs: Iterable[_Output], content: memoryview) -> dict[str, bytes]:
    import zstandard

    try:
        # A stream, because decompress() would reserve whatever the frame says that it holds.
        with zstandard.ZstdDecompressor().stream_reader(content) as stream:
            found = {output.role: _read_output(stream, output) for output in outputs}
            if stream.read(1):
                raise BadEntryError("it holds more than it states")
    except zstandard.ZstdError as error:
        raise BadEntryError(f"it can't be decompressed: {error}") from None
    return found


_CHUNK_BYTES = 2**22


def _read_output(stream: IO[bytes], output: _Output) -> bytes:
    data = bytearray()
    # In pieces: a stated size reserves nothing that the frame does not hold.
    while len(data) < output.size:
        piece = stream.read(min(_CHUNK_BYTES, output.size - len(data)))
        if not piece:
            break
        data += piece
    if len(data) != output.size or hashlib.sha256(data).hexdigest() != output.sha256:
        raise BadEntryError(f"its output {output.role} is not what it states")
    return bytes(data)

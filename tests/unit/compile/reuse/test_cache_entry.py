"""The format of an entry: what comes out is what went in, of that key, or nothing."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from attnforge.compile.reuse.cache.entry import MAX_CONTENT_BYTES, BadEntryError, Seal, pack, unpack

KEY, OTHER = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"other").hexdigest()
OUTPUTS = {"ptx": b"// kernel\n" * 20, "stub.c": b"int stub;", "empty": b""}
OPEN, SECRET, WRONG = Seal(), Seal.of(b"a secret"), Seal.of(b"another")
SEALS = pytest.mark.parametrize("seal", [OPEN, SECRET], ids=["open", "secret"])

keys = st.binary(min_size=32, max_size=32).map(bytes.hex)
roles = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
payloads = st.dictionaries(roles, st.binary(max_size=2000), min_size=1, max_size=5)


def forge(header: Any, content: bytes, seal: Seal = OPEN, key: str = KEY) -> bytes:
    """An entry as someone would write it who knows the format, and the secret."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack(">6sHI", b"AFSTEP", 1, len(text)) + text + content
    return body + seal.digest(key, (body,))


def described(content: bytes, *outputs: tuple[Any, Any, Any], **changes: Any) -> dict[str, Any]:
    listed = [{"role": role, "size": size, "sha256": sha256} for role, size, sha256 in outputs]
    return {"key": KEY, "outputs": listed, "compressed": len(content), **changes}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(key=keys, outputs=payloads, seal=st.sampled_from([OPEN, SECRET]))
def test_what_comes_out_is_what_went_in(key: str, outputs: dict[str, bytes], seal: Seal) -> None:
    assert unpack(key, pack(key, outputs, seal), seal) == outputs


@SEALS
def test_an_entry_truncated_anywhere_is_refused(seal: Seal) -> None:
    blob = pack(KEY, OUTPUTS, seal)
    for size in range(len(blob)):
        with pytest.raises(BadEntryError):
            unpack(KEY, blob[:size], seal)


@SEALS
def test_an_entry_changed_in_any_byte_is_refused(seal: Seal) -> None:
    blob = pack(KEY, OUTPUTS, seal)
    for position in range(len(blob)):
        changed = bytearray(blob)
        changed[position] ^= 0x10
        with pytest.raises(BadEntryError):
            unpack(KEY, bytes(changed), seal)


@given(data=st.binary(max_size=300), tail=st.binary(min_size=1, max_size=50))
def test_anything_else_is_refused(data: bytes, tail: bytes) -> None:
    for blob in (data, pack(KEY, OUTPUTS, OPEN) + tail, struct.pack(">6sHI", b"AFSTEP", 1, len(data)) + data + tail):
        with pytest.raises(BadEntryError):
            unpack(KEY, blob, OPEN)


@given(key=keys, other=keys, outputs=payloads, seal=st.sampled_from([OPEN, SECRET]))
def test_an_entry_of_another_key_is_refused(key: str, other: str, outputs: dict[str, bytes], seal: Seal) -> None:
    if key != other:
        with pytest.raises(BadEntryError):
            unpack(other, pack(key, outputs, seal), seal)


def test_an_entry_whose_digest_was_made_for_another_key_is_refused() -> None:
    """Without a secret anyone can compute the digest, and still the header has to name the key."""
    content = zstandard.compress(b"x")
    blob = forge(described(content, ("ptx", 1, sha256(b"x"))), content, key=OTHER)
    with pytest.raises(BadEntryError, match="another key"):
        unpack(OTHER, blob, OPEN)


@pytest.mark.parametrize(
    ("made", "read"), [(OPEN, SECRET), (WRONG, SECRET), (SECRET, OPEN)], ids=["no secret", "wrong", "not expected"]
)
def test_an_entry_under_another_seal_is_refused(made: Seal, read: Seal) -> None:
    with pytest.raises(BadEntryError, match="secret"):
        unpack(KEY, pack(KEY, OUTPUTS, made), read)


def test_a_digest_is_that_of_the_key_the_content_and_the_secret() -> None:
    digests = {
        seal.digest(key, (content,))
        for seal in (OPEN, SECRET, WRONG)
        for key in (KEY, OTHER)
        for content in (b"", b"x")
    }
    assert len(digests) == 12
    assert SECRET.digest(KEY, (b"a", b"b")) == SECRET.digest(KEY, (b"ab",))


def test_a_seal_does_not_show_its_secret() -> None:
    assert repr(SECRET) == "Seal()"


GOOD = zstandard.compress(b"abc")


@pytest.mark.parametrize(
    ("header", "content"),
    [
        pytest.param(b"{", GOOD, id="no JSON"),
        pytest.param(b"\xff\xfe", GOOD, id="no text"),
        pytest.param(b"[" * 100_000, GOOD, id="deep"),
        pytest.param([], GOOD, id="no object"),
        pytest.param({}, GOOD, id="nothing"),
        pytest.param(described(GOOD), GOOD, id="no outputs"),
        pytest.param(described(GOOD, ("ptx", 3, sha256(b"abc")), compressed=1), GOOD, id="other length"),
        pytest.param(described(GOOD, ("ptx", 2, sha256(b"ab"))), GOOD, id="more than stated"),
        pytest.param(described(GOOD, ("ptx", 4, sha256(b"abc"))), GOOD, id="less than stated"),
        pytest.param(described(GOOD, ("ptx", 3, sha256(b"abd"))), GOOD, id="another hash"),
        pytest.param(described(GOOD, ("ptx", -1, "")), GOOD, id="negative"),
        pytest.param(described(GOOD, ("ptx", 3.0, sha256(b"abc"))), GOOD, id="a fraction"),
        pytest.param(described(GOOD, ("ptx", True, sha256(b"a"))), GOOD, id="a truth"),
        pytest.param(described(GOOD, ("../ptx", 3, sha256(b"abc"))), GOOD, id="a path"),
        pytest.param(described(GOOD, (None, 3, sha256(b"abc"))), GOOD, id="no name"),
        pytest.param(described(GOOD, ("a", 1, sha256(b"a")), ("a", 2, sha256(b"bc"))), GOOD, id="twice"),
        pytest.param(described(b"abc", ("ptx", 3, sha256(b"abc"))), b"abc", id="not compressed"),
        pytest.param(described(b"", ("ptx", 3, sha256(b"abc"))), b"", id="no content"),
    ],
)
@SEALS
def test_a_header_that_does_not_hold_is_refused(header: Any, content: bytes, seal: Seal) -> None:
    with pytest.raises(BadEntryError):
        unpack(KEY, forge(header, content, seal), seal)


def test_the_forge_of_these_tests_makes_good_entries() -> None:
    assert unpack(KEY, forge(described(GOOD, ("ptx", 3, sha256(b"abc"))), GOOD), OPEN) == {"ptx": b"abc"}


@pytest.mark.parametrize("stated", [3, 2**28, MAX_CONTENT_BYTES + 1])
def test_a_bomb_takes_no_memory(stated: int) -> None:
    """64 MiB in some kilobytes, and a header that tells less, and one that tells more than is there or allowed."""
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(2**26)) if stated == 3 else GOOD
    blob = forge(described(bomb, ("ptx", stated, sha256(bytes(3)))), bomb)
    tracemalloc.start()
    try:
        with pytest.raises(BadEntryError):
            unpack(KEY, blob, OPEN)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("role", ["", ".", "..", "a/b", ".hidden", "a b", "a\n", "ü", "x" * 65])
def test_an_output_has_a_plain_name(role: str) -> None:
    with pytest.raises(ValueError, match="output"):
        pack(KEY, {role: b""}, OPEN)


def test_no_outputs_make_no_entry() -> None:
    with pytest.raises(ValueError, match="no entry"):
        pack(KEY, {}, OPEN)


def test_a_path_is_that_of_the_key_and_the_secret() -> None:
    assert OPEN.path(KEY) == f"{KEY[:2]}/{KEY[2:]}"
    assert len({seal.path(key) for seal in (OPEN, SECRET, WRONG) for key in (KEY, OTHER)}) == 6
    assert Seal.of(b"a secret").path(KEY) == SECRET.path(KEY)
    assert KEY[2:] not in SECRET.path(KEY)


@pytest.mark.parametrize("key", ["", "a" * 63, "a" * 65, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_a_key_is_a_hex_sha256(key: str) -> None:
    with pytest.raises(ValueError, match="hex SHA-256"):
        OPEN.path(key)

"""The step cache: folder and store together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cache_stores import PATIENT, QUICK, MemoryRemote, failing, hanging

from attnforge.compile.reuse.cache import Limits, Stats, StepCache
from attnforge.compile.reuse.cache.entry import Seal

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(20)]
KEY, OTHER = KEYS[:2]
OUTPUTS = {"ptx": b"// kernel", "stub": b"int stub;"}


class House:
    """Makes caches that share a store in memory, each in a folder of its own, and keeps what they warn of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = MemoryRemote()
        self.warnings: list[str] = []

    def cache(
        self, name: str = "a", *, shared: bool = True, secret: bytes = b"", limits: Limits = PATIENT
    ) -> StepCache:
        return StepCache(
            self.folder / name,
            limit_bytes=2**20,
            remote=self.remote if shared else None,
            secret=secret,
            warn=self.warnings.append,
            limits=limits,
        )

    def files(self, name: str = "a") -> list[Path]:
        return sorted(path for path in (self.folder / name).glob("??/*"))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_what_was_put_is_got(house: House) -> None:
    cache = house.cache(shared=False)
    assert cache.get(KEY) is None
    cache.put(KEY, OUTPUTS)
    assert cache.get(KEY) == OUTPUTS
    assert cache.get(OTHER) is None
    cache.close()
    assert house.cache(shared=False).get(KEY) == OUTPUTS
    assert cache.stats == Stats(hits_local=1, misses=2, stored=1)
    assert house.warnings == []


def test_another_machine_gets_it_from_the_store(house: House) -> None:
    first, second = house.cache("a"), house.cache("b")
    first.put(KEY, OUTPUTS)
    first.close()
    assert second.get(KEY) == OUTPUTS
    assert second.get(KEY) == OUTPUTS
    assert first.stats == Stats(stored=1, uploads=1)
    assert second.stats == Stats(hits_remote=1, hits_local=1)
    assert [path.read_bytes() for path in house.files("b")] == list(house.remote.blobs.values())


def test_the_folder_is_asked_first(house: House) -> None:
    house.remote.before = failing("read")
    cache = house.cache()
    cache.put(KEY, OUTPUTS)
    assert cache.get(KEY) == OUTPUTS
    assert "read" not in house.remote.calls


def swap(blobs: dict[str, bytes], path: str) -> None:
    blobs[path] = next(blob for name, blob in blobs.items() if name != path)


DAMAGES = pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda blobs, path: blobs.update({path: blobs[path][:-1]}), id="truncated"),
        pytest.param(lambda blobs, path: blobs.update({path: b""}), id="empty"),
        pytest.param(
            lambda blobs, path: blobs.update({path: blobs[path][:60] + b"?" + blobs[path][61:]}), id="changed"
        ),
        pytest.param(swap, id="swapped"),
    ],
)
Damage = Callable[[dict[str, bytes], str], None]


@DAMAGES
@pytest.mark.parametrize("secret", [b"", b"secret"], ids=["open", "sealed"])
def test_a_damaged_shared_entry_is_a_miss_and_is_replaced(house: House, damage: Damage, secret: bytes) -> None:
    first, second = house.cache("a", secret=secret), house.cache("b", secret=secret)
    for key in (KEY, OTHER):
        first.put(key, {"ptx": key.encode()})
    first.close()
    damage(house.remote.blobs, Seal.of(secret).path(KEY))
    assert second.get(KEY) is None
    assert second.get(OTHER) == {"ptx": OTHER.encode()}
    assert second.stats == Stats(hits_remote=1, misses=1, refused=1)
    assert len(house.warnings) == 1
    assert "memory://store was not used" in house.warnings[0]
    second.put(KEY, OUTPUTS)
    second.close()
    assert house.cache("c", secret=secret).get(KEY) == OUTPUTS


@DAMAGES
def test_a_damaged_local_entry_is_removed(house: House, damage: Damage) -> None:
    cache = house.cache(shared=False)
    for key in (KEY, OTHER):
        cache.put(key, {"ptx": key.encode()})
    blobs = {str(path): path.read_bytes() for path in house.files()}
    path = str(house.folder / "a" / KEY[:2] / KEY[2:])
    damage(blobs, path)
    Path(path).write_bytes(blobs[path])
    assert cache.get(KEY) is None
    assert not Path(path).exists()
    assert cache.get(KEY) is None
    assert cache.stats == Stats(misses=2, stored=2, refused=1)
    assert len(house.warnings) == 1
    assert KEY in house.warnings[0]


def test_a_damaged_local_entry_is_had_from_the_store(house: House) -> None:
    cache = house.cache()
    cache.put(KEY, OUTPUTS)
    cache.close()
    house.files()[0].write_bytes(b"damaged")
    assert cache.get(KEY) == OUTPUTS
    assert cache.get(KEY) == OUTPUTS
    assert cache.stats == Stats(hits_local=1, hits_remote=1, stored=1, refused=1, uploads=1)


@pytest.mark.parametrize(("writer", "reader"), [(b"", b"secret"), (b"wrong", b"secret"), (b"secret", b"")])
def test_with_another_secret_nothing_is_shared_and_nothing_is_lost(house: House, writer: bytes, reader: bytes) -> None:
    theirs = house.cache("a", secret=writer)
    theirs.put(KEY, OUTPUTS)
    theirs.close()
    ours = house.cache("a", secret=reader)
    assert ours.get(KEY) is None
    ours.put(KEY, {"ptx": b"ours"})
    ours.close()
    assert ours.stats.refused == 0
    assert house.cache("a", secret=writer).get(KEY) == OUTPUTS
    assert house.cache("b", secret=reader).get(KEY) == {"ptx": b"ours"}
    assert house.warnings == []


@pytest.mark.parametrize("theirs", [b"", b"wrong"])
def test_code_can_not_be_planted_without_the_secret(house: House, theirs: bytes) -> None:
    """They know the key and see the path, and write an entry of their own there, in the store and in the folder."""
    ours = house.cache("a", secret=b"secret")
    ours.put(KEY, OUTPUTS)
    ours.close()
    (path,) = house.remote.blobs
    planter = house.cache("planter", shared=False, secret=theirs)
    planter.put(KEY, {"ptx": b"planted"})
    house.remote.blobs[path] = house.files("planter")[0].read_bytes()
    house.files("a")[0].write_bytes(house.remote.blobs[path])
    cache = house.cache("a", secret=b"secret")
    assert cache.get(KEY) is None
    assert cache.stats == Stats(misses=1, refused=2)
    assert len(house.warnings) == 2  # one for the folder, one for the store


def test_a_store_that_is_down_costs_three_time_limits(house: House) -> None:
    with hanging("read", "write") as house.remote.before:
        cache = house.cache(limits=QUICK)
        for key in KEYS:
            assert cache.get(key) is None
        for key in KEYS:
            cache.put(key, OUTPUTS)
            assert cache.get(key) == OUTPUTS
        cache.close(30)
    assert house.remote.calls == ["read"] * 3
    assert cache.stats == Stats(hits_local=20, misses=20, stored=20, upload_failures=20)
    assert len(house.warnings) == 1


def test_without_a_usable_folder_the_store_still_serves(house: House) -> None:
    (house.folder / "a").write_text("a file in the way")
    cache = house.cache()
    cache.put(KEY, OUTPUTS)
    cache.close()
    assert cache.get(KEY) == OUTPUTS
    assert cache.stats == Stats(hits_remote=1, uploads=1)
    assert len(house.warnings) == 1


def test_many_threads_at_once(house: House) -> None:
    """Two caches on one folder, as two builds are, put and get the same keys."""
    caches = [house.cache(), house.cache()]

    def work(number: int) -> bool:
        key, cache = KEYS[number % 5], caches[number % 2]
        outputs = {"cubin": key.encode() * 1000}
        before = cache.get(key)
        cache.put(key, outputs)
        return before in (None, outputs) and cache.get(key) == outputs

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(200)))
    for cache in caches:
        cache.close()
    totals = [sum((stats.hits_local, stats.hits_remote, stats.misses)) for stats in (cache.stats for cache in caches)]
    assert totals == [200, 200]
    assert [cache.stats.stored for cache in caches] == [100, 100]
    assert [cache.stats.uploads for cache in caches] == [100, 100]
    assert house.warnings == []
    assert len(house.files()) == len(house.remote.blobs) == 5


def test_closing_brings_the_folder_down_to_its_limit(house: House) -> None:
    cache = StepCache(house.folder / "a", limit_bytes=1000, warn=house.warnings.append)
    for key in KEYS:
        cache.put(key, OUTPUTS)
    cache.close()
    assert 0 < sum(path.stat().st_size for path in house.files()) <= 1000


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 64])
def test_a_bad_key_is_our_own_fault(house: House, key: str) -> None:
    cache = house.cache()
    with pytest.raises(ValueError, match="hex SHA-256"):
        cache.get(key)
    with pytest.raises(ValueError, match="hex SHA-256"):
        cache.put(key, OUTPUTS)

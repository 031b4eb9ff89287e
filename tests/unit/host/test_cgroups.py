from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnforge.errors import HostError
from attnforge.host.cgroups import cpu_quota, levels, memory_limits
from attnforge.host.machine import usable_cpus, usable_memory

GB = 10**9
MEMINFO = (
    "MemTotal:       24684092 kB\nMemFree:        20000000 kB\nMemAvailable:   22000000 kB\nHugePages_Total:       0\n"
)
TOTAL = 24684092 * 1024
AVAILABLE = 22000000 * 1024

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MEMORY = "35 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHER = "22 27 0:21 / /proc rw,relatime - proc proc rw\nbroken line\n"


def tree(root: Path, cgroup: str, mounts: str, files: Mapping[str, str], meminfo: str = MEMINFO) -> Path:
    written = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": OTHER + mounts, "proc/meminfo": meminfo}
    for name, text in {**written, **{f"sys/fs/cgroup/{key}": value for key, value in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_no_cgroups(tmp_path: Path) -> None:
    memory = usable_memory(tree(tmp_path, "", "", {}))
    assert (memory.total_bytes, memory.limit_bytes, memory.available_bytes) == (TOTAL, TOTAL, AVAILABLE)
    assert memory.limited_by == "machine"
    assert usable_cpus(8, 8, tmp_path) == (8, "machine")
    assert usable_cpus(3, 8, tmp_path) == (3, "affinity")


def test_version_2_takes_the_tightest_of_all_levels(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": f"{16 * GB}\n",
        "a/b/memory.current": f"{3 * GB}",
        "a/b/memory.stat": f"anon 5\ninactive_file {2 * GB}\nactive_file 7\n",
        "a/memory.max": f"{8 * GB}\n",
        "a/memory.current": f"{5 * GB}",
        "a/memory.stat": f"inactive_file {1 * GB}\n",
        "a/b/cpu.max": "max 100000\n",
        "a/cpu.max": "250000 100000\n",
        "cgroup.procs": "",
    }
    root = tree(tmp_path, "0::/a/b\n", V2, files)
    memory = usable_memory(root)
    assert memory.limit_bytes == 8 * GB
    assert memory.available_bytes == 4 * GB
    assert memory.limited_by == "cgroup /a (memory.max)"
    assert usable_cpus(8, 8, root) == (3, "cgroup /a (cpu.max)")


def test_the_limit_and_the_least_available_can_come_from_different_levels(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": str(4 * GB),
        "a/b/memory.current": str(1 * GB),
        "a/memory.max": str(6 * GB),
        "a/memory.current": str(5 * GB),
    }
    memory = usable_memory(tree(tmp_path, "0::/a/b", V2, files))
    assert (memory.limit_bytes, memory.available_bytes) == (4 * GB, 1 * GB)


def test_memory_high_limits_too(tmp_path: Path) -> None:
    files = {"a/memory.max": "max", "a/memory.high": str(5 * GB), "a/memory.current": "0"}
    memory = usable_memory(tree(tmp_path, "0::/a", V2, files))
    assert (memory.limit_bytes, memory.limited_by) == (5 * GB, "cgroup /a (memory.high)")


def test_a_container_with_its_own_namespace_sees_its_group_as_the_root(tmp_path: Path) -> None:
    files = {"memory.max": str(2 * GB), "memory.current": str(GB), "cpu.max": "100000 100000"}
    root = tree(tmp_path, "0::/\n", V2, files)
    assert usable_memory(root).limited_by == "cgroup / (memory.max)"
    assert usable_cpus(4, 4, root) == (1, "cgroup / (cpu.max)")


@pytest.mark.parametrize("group", ["/docker/0123", "/../outside", "/system.slice/docker.service"])
def test_a_container_that_sees_the_hosts_path_falls_back_to_its_mount(tmp_path: Path, group: str) -> None:
    mount = V1_MEMORY.replace(" / /sys", " /docker/0123 /sys")
    files = {"memory/memory.limit_in_bytes": str(3 * GB), "memory/memory.usage_in_bytes": str(GB)}
    memory = usable_memory(tree(tmp_path, f"4:memory:{group}\n", mount, files))
    assert (memory.limit_bytes, memory.available_bytes) == (3 * GB, 2 * GB)


def test_file_pages_can_be_dropped_those_in_use_by_half(tmp_path: Path) -> None:
    files = {
        "a/memory.max": str(8 * GB),
        "a/memory.current": str(6 * GB),
        "a/memory.stat": f"anon {1 * GB}\ninactive_file {1 * GB}\nactive_file {4 * GB}\n",
        "cgroup.procs": "",
    }
    assert usable_memory(tree(tmp_path, "0::/a\n", V2, files)).available_bytes == 5 * GB


def test_version_1(tmp_path: Path) -> None:
    files = {
        "memory/api/memory.limit_in_bytes": str(7 * GB),
        "memory/api/memory.usage_in_bytes": str(4 * GB),
        "memory/api/memory.stat": f"cache 1\ninactive_file 5\ntotal_inactive_file {1 * GB}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "cpu,cpuacct/api/cpu.cfs_quota_us": "150000\n",
        "cpu,cpuacct/api/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    root = tree(tmp_path, "4:memory:/api\n2:cpu,cpuacct:/api\n0::/\n", V1_MEMORY + V1_CPU, files)
    memory = usable_memory(root)
    assert (memory.limit_bytes, memory.available_bytes) == (7 * GB, 4 * GB)
    assert memory.limited_by == "cgroup /api (memory.limit_in_bytes)"
    assert usable_cpus(8, 8, root) == (2, "cgroup /api (cpu.cfs_quota_us)")


def test_both_versions_at_once(tmp_path: Path) -> None:
    unified = V2.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup/unified rw")
    files = {
        "memory/x/memory.limit_in_bytes": str(9 * GB),
        "unified/y/memory.max": str(6 * GB),
        "unified/y/memory.current": "0",
    }
    root = tree(tmp_path, "4:memory:/x\n0::/y\n", V1_MEMORY + unified, files)
    assert usable_memory(root).limit_bytes == 6 * GB
    assert {level.version for level in levels(root, "memory")} == {1, 2}


def test_an_unlimited_version_1_group_is_no_limit(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": str(GB)}
    memory = usable_memory(tree(tmp_path, "4:memory:/\n", V1_MEMORY, files))
    assert (memory.limit_bytes, memory.limited_by, memory.available_bytes) == (TOTAL, "machine", AVAILABLE)


def test_a_quota_above_the_affinity_does_not_count(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/a", V2, {"a/cpu.max": "900000 100000"})
    assert usable_cpus(4, 16, root) == (4, "affinity")


def test_mount_points_with_escaped_characters(tmp_path: Path) -> None:
    mount = V2.replace("/sys/fs/cgroup rw", "/sys/fs/cgroup/my\\040group rw")
    root = tree(tmp_path, "0::/a", mount, {"my group/a/memory.max": str(GB), "my group/a/memory.current": "0"})
    assert usable_memory(root).limit_bytes == GB


def test_more_used_than_the_limit_leaves_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/a", V2, {"a/memory.max": "1000", "a/memory.current": "5000"})
    assert usable_memory(root).available_bytes == 0


def test_old_kernels_without_memavailable(tmp_path: Path) -> None:
    root = tree(tmp_path, "", "", {}, "MemTotal:  1000 kB\nMemFree:   400 kB\n")
    assert usable_memory(root).available_bytes == 400 * 1024


@pytest.mark.parametrize("meminfo", ["", "nonsense"])
def test_a_machine_that_does_not_tell_its_memory(tmp_path: Path, meminfo: str) -> None:
    with pytest.raises(HostError, match="memory"):
        usable_memory(tree(tmp_path, "", "", {}, meminfo))
    with pytest.raises(HostError, match="memory"):
        usable_memory(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "max", "max 100000", "100000", "0 100000", "100000 0", "x y", "-1 100000"])
def test_quotas_that_say_nothing(tmp_path: Path, text: str) -> None:
    assert cpu_quota(tree(tmp_path, "0::/a", V2, {"a/cpu.max": text})) is None


@pytest.mark.parametrize(("quota", "cpus"), [(1, 1), (99_999, 1), (100_000, 1), (100_001, 2), (350_000, 4)])
def test_quotas_are_rounded_up(tmp_path: Path, quota: int, cpus: int) -> None:
    found = cpu_quota(tree(tmp_path, "0::/a", V2, {"a/cpu.max": f"{quota} 100000"}))
    assert found == (cpus, "cgroup /a (cpu.max)")


@given(cgroup=st.text(max_size=80), mounts=st.text(max_size=120), limit=st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_in_these_files_is_survived(tmp_path: Path, cgroup: str, mounts: str, limit: str) -> None:
    encodable = [text.encode("utf-8", "replace").decode() for text in (cgroup, mounts, limit)]
    root = tree(tmp_path, encodable[0], encodable[1], {"memory.max": encodable[2], "cpu.max": encodable[2]})
    memory = usable_memory(root)
    assert 0 <= memory.available_bytes <= memory.limit_bytes <= memory.total_bytes == TOTAL
    assert memory_limits(root) == ()


@given(
    numbers=st.lists(st.one_of(st.none(), st.integers(0, 2 * TOTAL)), min_size=1, max_size=5),
    used=st.integers(0, TOTAL),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_limit_is_the_least_of_all_levels(tmp_path: Path, numbers: list[int | None], used: int) -> None:
    path = [f"l{index}" for index in range(len(numbers))]
    files: dict[str, str] = {}
    for index, number in enumerate(numbers):
        folder = "/".join(path[: index + 1])
        files[f"{folder}/memory.max"] = "max" if number is None else str(number)
        files[f"{folder}/memory.current"] = str(used)
    memory = usable_memory(tree(tmp_path, f"0::/{'/'.join(path)}", V2, files))
    limits = [number for number in numbers if number is not None]
    assert memory.limit_bytes == min([TOTAL, *limits])
    assert memory.available_bytes == min([AVAILABLE, *(max(0, number - used) for number in limits)])

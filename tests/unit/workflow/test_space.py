"""Whether there is room for a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from attnforge.errors import HostError, RequestError
from attnforge.model.host import Disk, Host
from attnforge.model.plan import BuildPlan, Resolution
from attnforge.workflow.machine import Machine
from attnforge.workflow.space import Need, check_environment_space, check_output, check_space, free_in, needs_of

MB = 1_000_000


def disks(free: Mapping[str, tuple[int, int]]) -> Callable[[Path], tuple[int, int]]:
    return lambda folder: free[str(folder)]


NEEDS = (
    Need(Path("/cache"), 50 * MB, "ATTNFORGE_CACHE=FOLDER"),
    Need(Path("/tmp"), 30 * MB, "TMPDIR=FOLDER"),
    Need(Path("/out"), 10 * MB, "--out FOLDER"),
)


@pytest.mark.parametrize(
    ("free", "said"),
    [
        ({"/cache": (1, 50 * MB), "/tmp": (2, 30 * MB), "/out": (3, 10 * MB)}, ""),
        ({"/cache": (1, 90 * MB), "/tmp": (1, 90 * MB), "/out": (1, 90 * MB)}, ""),
        # Each has room by itself, not both.
        ({"/cache": (1, 79 * MB), "/tmp": (1, 79 * MB), "/out": (2, 10 * MB)}, "needs 80 MB at least, and 79 MB"),
        ({"/cache": (1, 50 * MB), "/tmp": (2, 29 * MB), "/out": (3, 10 * MB)}, "30 MB in /tmp"),
        ({"/cache": (1, 50 * MB), "/tmp": (2, 30 * MB), "/out": (3, 9 * MB)}, "--out FOLDER"),
    ],
)
def test_room(free: Mapping[str, tuple[int, int]], said: str) -> None:
    if not said:
        check_space(NEEDS, disks(free))
        return
    with pytest.raises(HostError) as raised:
        check_space(NEEDS, disks(free))
    assert said in str(raised.value)


def test_what_a_build_needs(make_plan: Callable[..., BuildPlan]) -> None:
    plan = make_plan()
    places = (Path("/cache"), Path("/tmp"), Path("/out"))
    kernels, architectures = len(plan.selection.kept), len(plan.target.architectures)
    assert kernels > 1
    cache, temporary, out = needs_of(plan, 4 * kernels, *places)
    # No more compiles at once than there are kernels.
    assert temporary.size == needs_of(plan, kernels, *places)[1].size > needs_of(plan, 1, *places)[1].size > 0
    assert out.size == kernels * architectures * 160_000 < cache.size
    # What is there already is not needed again.
    assert needs_of(plan, 1, *places, there=MB)[0].size == cache.size - MB
    assert needs_of(plan, 1, *places, there=10**12)[0].size == 0


def test_a_folder_that_is_not_there_is_on_its_parents_disk(tmp_path: Path) -> None:
    assert free_in(tmp_path / "not" / "yet")[0] == tmp_path.stat().st_dev


def test_where_wheels_go(tmp_path: Path) -> None:
    check_output(tmp_path)
    check_output(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for bad in ("file", "file/below", "link", "link/below"):
        with pytest.raises(RequestError):
            check_output(tmp_path / bad)


@pytest.mark.parametrize(("free", "made", "refused"), [(4.0, False, True), (4.0, True, False), (5.0, False, False)])
def test_the_first_environment_needs_room(
    tmp_path: Path,
    make_host: Callable[..., Host],
    make_resolution: Callable[..., Resolution],
    free: float,
    made: bool,
    refused: bool,
) -> None:
    disk = Disk(purpose="build", path=str(tmp_path), free_bytes=int(free * 1e9), device=1, writable=True)
    environ = {"HOME": str(tmp_path), "ATTNFORGE_CACHE": str(tmp_path / "cache")}
    machine = Machine(environ)
    machine.__dict__["host"] = make_host(disks=(disk,))
    if made:
        machine.folders.environments.mkdir(parents=True)
    plan = make_resolution().plan
    if refused:
        with pytest.raises(HostError, match=r"4\.0 GB are free, and it needs 4\.5 GB"):
            check_environment_space(machine, plan)
    else:
        check_environment_space(machine, plan)

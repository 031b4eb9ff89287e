"""experiments/upstream_tests.py: which of upstream's tests it runs, and what it says of them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

BENCH = Path(__file__).parents[2] / "experiments"

TESTS = """\
import os\n\nimport flash_attn_2_cuda, pytest

@pytest.mark.parametrize("number", range(40))
def test_many(number):
    if number % 10 == 3:
        pytest.skip("not here")
    if number == flash_attn_2_cuda.DEADLY:
        os.abort()
    assert number not in flash_attn_2_cuda.WRONG

@pytest.mark.parametrize("splits", (1, 2))
def test_flash_attn_combine(splits):
    assert splits not in flash_attn_2_cuda.SPLITS

def test_few():
    pass
"""


def run(
    folder: Path, wrong: str, *options: str, deadly: int = -1, splits: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    wheel, sdist, tests = folder / "tiny-1-py3-none-any.whl", folder / "tiny-1.tar.gz", folder / "test_flash_attn.py"
    with zipfile.ZipFile(wheel, "w") as bundle:
        bundle.writestr("flash_attn_2_cuda.py", f"WRONG = {wrong}\nDEADLY = {deadly}\nSPLITS = {splits}")
    tests.write_text(TESTS, encoding="utf-8")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(tests, "tiny-1/tests/test_flash_attn.py")
    argv = [sys.executable, str(BENCH / "upstream_tests.py"), str(wheel), str(sdist), "--processes", "2", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_test_that_fails_is_named_and_is_the_verdict(tmp_path: Path) -> None:
    done = run(tmp_path, "[7]")
    assert done.returncode == 1
    assert "FAILED test_flash_attn.py::test_many[7]" in done.stdout
    assert "43 tests: 38 passed, 1 failed, 4 skipped; 1 failed beside others" in done.stdout


def test_each_function_has_its_share_of_the_sample(tmp_path: Path) -> None:
    done = run(tmp_path, "[]", "--sample", "11")
    assert done.returncode == 0, done.stderr
    assert "test_few: 1 passed" in done.stdout
    assert "11 tests: " in done.stdout and " 0 failed" in done.stdout


def test_a_test_that_ends_the_process_is_named_and_the_others_run(tmp_path: Path) -> None:
    done = run(tmp_path, "[7]", deadly=12)
    assert done.returncode == 1
    assert "CRASHED test_flash_attn.py::test_many[12]\nthe process ended by signal 6" in done.stdout
    assert "FAILED test_flash_attn.py::test_many[7]" in done.stdout
    assert "43 tests: 37 passed, 2 failed, 4 skipped" in done.stdout


def test_what_fails_with_upstreams_own_release_is_told_apart(tmp_path: Path) -> None:
    done = run(tmp_path, "[]", splits=(1,))
    assert done.returncode == 0, done.stdout
    assert "1 failed as upstream's own release does: flash_fwd_combine_kernel.h returns" in done.stdout
    assert "43 tests: 38 passed, 0 failed, 4 skipped" in done.stdout
    # The same function with other parameters is not known to fail.
    assert run(tmp_path, "[]", splits=(2,)).returncode == 1


def test_a_module_that_does_not_import_is_no_success(tmp_path: Path) -> None:
    done = run(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr

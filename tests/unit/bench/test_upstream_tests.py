"""bench/upstream_tests.py: which of upstream's tests it runs, and what it says of them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

BENCH = Path(__file__).parents[3] / "bench"

TESTS = """\
import flash_attn_2_cuda, pytest

@pytest.mark.parametrize("number", range(40))
def test_many(number):
    if number % 10 == 3:
        pytest.skip("not here")
    assert number not in flash_attn_2_cuda.WRONG

def test_few():
    pass
"""


def run(folder: Path, wrong: str, *options: str) -> subprocess.CompletedProcess[str]:
    wheel, sdist, tests = folder / "tiny-1-py3-none-any.whl", folder / "tiny-1.tar.gz", folder / "test_flash_attn.py"
    with zipfile.ZipFile(wheel, "w") as bundle:
        bundle.writestr("flash_attn_2_cuda.py", f"WRONG = {wrong}")
    tests.write_text(TESTS, encoding="utf-8")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(tests, "tiny-1/tests/test_flash_attn.py")
    argv = [sys.executable, str(BENCH / "upstream_tests.py"), str(wheel), str(sdist), "--processes", "2", *options]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_a_test_that_fails_is_named_and_is_the_verdict(tmp_path: Path) -> None:
    done = run(tmp_path, "[7]")
    assert done.returncode == 1
    assert "FAILED test_flash_attn.py::test_many[7]" in done.stdout
    assert "41 tests: 36 passed, 1 failed, 4 skipped; 1 failed beside others" in done.stdout


def test_each_function_has_its_share_of_the_sample(tmp_path: Path) -> None:
    done = run(tmp_path, "[]", "--sample", "11")
    assert done.returncode == 0, done.stderr
    assert "test_few: 1 passed" in done.stdout
    assert "11 tests: " in done.stdout and " 0 failed" in done.stdout


def test_a_module_that_does_not_import_is_no_success(tmp_path: Path) -> None:
    done = run(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr

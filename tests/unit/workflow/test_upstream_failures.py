"""What is said of an upstream build that ends before a compiler runs."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import pytest

from attnforge.compile.run.diagnose import known_cause
from attnforge.errors import BuildError, HostError, RequestError
from attnforge.process import base_environment
from attnforge.workflow.upstream import FROM_SOURCE, build_requirements, build_wheel, is_temporary, prebuilt


def failure(folder: Path, setup: str) -> BuildError:
    source = folder / "source"
    source.mkdir()
    (source / "setup.py").write_text(setup)
    with pytest.raises(BuildError) as caught:
        build_wheel(source, Path(sys.executable), base_environment({}), None, folder, io.StringIO())
    return caught.value


def test_a_setup_that_raises_is_no_compilers_fault(tmp_path: Path) -> None:
    error = failure(tmp_path, "raise RuntimeError('no GPU, no build')\n")
    assert "RuntimeError: no GPU, no build" in error.what
    assert "the compiler ended" not in str(error)
    assert "its own setup ended" in error.why


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "ImportError('\\nBLAS not found.\\nName it with --blas.\\nSee https://x')",
            "ImportError: BLAS not found. Name it",
        ),
        ("ImportError(' \\n\\nBLAS not found.')", "ImportError: BLAS not found."),
        ("NotImplementedError", "NotImplementedError"),
        ("RuntimeError('one\\ntwo')", "RuntimeError: one"),
    ],
)
def test_an_exceptions_text_is_said_where_it_begins_on_another_line(tmp_path: Path, raised: str, said: str) -> None:
    """F21: of MinkowskiEngine's error the last line was shown, which is a link."""
    assert failure(tmp_path, f"raise {raised}\n").what.startswith(f"upstream's build failed: {said}")


def test_a_download_that_failed_is_said_as_that(tmp_path: Path) -> None:
    setup = "print('Guessing wheel URL: x')\nimport urllib.error\nraise urllib.error.URLError('no such host')\n"
    error = failure(tmp_path, setup)
    assert "downloads something, and could not" in error.why
    assert "no error" not in str(error)


def test_a_full_disk_is_the_environments_fault(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "setup.py").write_text("raise SystemExit('ld: final link failed: No space left on device')\n")
    with pytest.raises(HostError, match="No space left"):
        build_wheel(source, Path(sys.executable), base_environment({}), None, tmp_path, io.StringIO())


@pytest.mark.parametrize(
    "log",
    [
        "Precompiled wheel not found. Building from source...\nValueError: x\n",
        "Guessing wheel URL: https://x\nHTTP Error 404: Not Found\nTypeError: y\n",
        "<urlopen error no host>: going on\nKeyError: 'z'\n",
    ],
)
def test_what_a_build_that_goes_on_prints_is_not_the_cause(log: str) -> None:
    assert known_cause(log) is None


@pytest.mark.parametrize(
    "text", ["build-system = 3", "[build-system]\nrequires = [3]", "x = " + "[" * 5000, "[", "\xff"]
)
def test_a_project_file_that_can_not_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match="can't be read"):
        build_requirements(tmp_path)


GUESSED = "Guessing wheel URL:  https://x/releases/it.whl\n"


@pytest.mark.parametrize(
    ("log", "compiled", "found"),
    [
        (GUESSED, False, True),
        (GUESSED, True, False),
        (f"{GUESSED}Raw wheel path /tmp/it.whl\n", True, True),
        (f"{GUESSED}Precompiled wheel not found. Building from source...\n", False, False),
        (f"Precompiled wheel not found\n{GUESSED}", False, True),
        ("running bdist_wheel\n", False, False),
        ("", False, False),
    ],
)
def test_a_log_says_that_a_prebuilt_wheel_was_packed(log: str, compiled: bool, found: bool) -> None:
    assert bool(prebuilt(log, compiled=compiled)) is found


def test_a_prebuilt_wheel_is_no_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (source / "backend.py").write_text(
        f"""from pathlib import Path
def build_wheel(folder, config_settings=None, metadata_directory=None):
    print({GUESSED!r})
    (Path(folder) / "it-1-py3-none-any.whl").touch()
    return "it-1-py3-none-any.whl"
"""
    )
    with pytest.raises(BuildError, match="downloaded a prebuilt wheel") as caught:
        build_wheel(source, Path(sys.executable), base_environment({}), None, tmp_path, io.StringIO())
    assert "https://x/releases/it.whl" in caught.value.why


def test_known_variables_that_force_a_build_are_set() -> None:
    # As the setups compare them: os.getenv(...) == "TRUE", int(os.getenv(...)) == 1.
    assert FROM_SOURCE["NVTE_PYTORCH_FORCE_BUILD"] == FROM_SOURCE["FLASH_ATTENTION_FORCE_BUILD"] == "TRUE"
    assert int(FROM_SOURCE["DG_FORCE_BUILD"]) == 1


def test_only_what_is_in_the_temporary_folder_is_removed_with_a_killed_build() -> None:
    top = tempfile.gettempdir()
    assert is_temporary(f"{top}/tmpabc")
    assert not any(map(is_temporary, (top, "/", ".", "", "tmpabc", "build_wheel", f"{top}/tmpabc/inner", "/home/me")))

"""A package's source inside the archive of another distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnforge.errors import BuildError
from attnforge.model.release import Carrier
from attnforge.provision.carrier import lay_out_carrier

CARRIER = Carrier(
    distribution="xformers",
    version="1.0",
    sha256="ab" * 32,
    subdirectory="third_party/flash-attention/hopper",
    files={"third_party/flash-attention/README.md": "Hopper.\n"},
)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    folder = tmp_path / CARRIER.subdirectory
    folder.mkdir(parents=True)
    (folder / "setup.py").touch()
    return tmp_path


def test_what_the_archive_lacks_is_added(top: Path) -> None:
    assert lay_out_carrier(top, CARRIER) == top / CARRIER.subdirectory
    assert (top / "third_party/flash-attention/README.md").read_text() == "Hopper.\n"


def test_nothing_that_is_there_is_changed(top: Path) -> None:
    readme = top / "third_party/flash-attention/README.md"
    readme.write_text("Upstream's.\n")
    with pytest.raises(BuildError, match=r"has third_party/flash-attention/README.md already"):
        lay_out_carrier(top, CARRIER)
    assert readme.read_text() == "Upstream's.\n"


def test_an_archive_without_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"has no third_party/flash-attention/hopper/setup.py") as caught:
        lay_out_carrier(tmp_path, CARRIER)
    assert "--source git" in caught.value.hint

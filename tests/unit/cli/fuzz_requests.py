"""Makes requests as users, files and servers could: right ones, nearly right ones and noise."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from unittest import mock

from hypothesis import strategies as st

from attnforge.cli import build as build_verb
from attnforge.cli import crash
from attnforge.cli import main as program
from attnforge.errors import RequestError
from attnforge.host.active import Inquirer
from attnforge.model.host import Host, Installed, Toolkit
from attnforge.options import OPTIONS
from attnforge.workflow import machine as machines

_TOOLKITS = (Toolkit(home="/usr/local/cuda-12.8", cuda="12.8", nvcc="12.8.93"),)

ALLOWED = {0, 2, 3, 4, 5, 6}

# --- words


def _listed(text: str) -> list[str]:
    return text.split()


_NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["0", "-1", "1" * 400, "9" * 5000, "1e999", "nan", "inf", "-0", "٣", "²", "0x10", "1_000", "+5"]),
)
_NOISE = st.text(max_size=12)
_PLAIN_ODD = _listed("- -- == , ; ../.. % { 1.0 ~ @ # [ ' \" é")
_ODD = st.sampled_from(["", " ", "\n", "\x00", "\udcff", "\x1b[2K", "\u202e", "a" * 300, "a" * 5000, *_PLAIN_ODD])
_VERSIONS = st.sampled_from(
    _listed(
        "1.0 2.8.3 2.7.4.post1 2.8.* >=2 1.0+cu128 1!2.0 1.0a1 v1.0 1..0 2.11.0+cu128 2.11+cpu 2.6 2.7.1 2.15 99 0 "
        "1.2.0+!! 1.0.dev1 2.2.0 3.0.0b1 1.0.6 0.19.8 2.3.2.post1"
    )
)
_RIGHT = {
    "gpu": "H100 L40S GH200 GB200 8.9 sm_90a native T4 V100 B200 RTX-5090 12.1 DGX-Spark 10.1 7.5 L40S,H100 A100,8.6",
    "python": "3.12 3.11.7 3.9 3.14t 4.0 2.7 3 3.10-3.13 3.10,3.12 3.13-3.10 cp312 3.12-",
    "torch": "2.11.0 2.11 2.6 99 2.11.0+cu128 2.11.0+cpu 2.11.0+rocm6.4 2.9-2.12 2.6,2.7 2.13-2.11 2.11.0,2.11 1.0 2 "
    "nightly installed 2.4.0 2.15.0 2.11+cu130,2.12+cu130 -2.11 2.11-",
    "env": "./tree /usr /nowhere python3 nothing ~nobody/x / . tree.zip",
    "cuda": "13.0 cu128 128 13 12 12.8.1 11.8 99.9 cuda13 12.4 .",
    "target": "reference hopper ada-hopper hoper",
    "profile": "full inference diffusion difusion",
    "head-dims": "64 64,128 80 512 0 -1 256",
    "dtypes": "bf16 fp16,bf16 fp8 int8",
    "without": "alibi softcap,local backward split dropout nothing varlen",
    "source": "sdist git carrier ./tree archive.tar.gz git+https://x.io/r@main git+file:///no . tree.zip /dev/null",
    "toolchain": "system pypi conda nvidia nvidia==12.8.1 nvidia==x",
    "cuda-mirror": "/tmp/mirror http://127.0.0.1:9/x file:///tmp ftp://x notaurl",
    "label": f"mine.1 none a_b A-B_c é {'x' * 190} 1 0",
    "jobs": "1 4 10000 0",
    "memory": "8G 48 1.5T 1e30G 0.1k 2M",
    "groups": "auto none 8 0 9999 64",
    "store": "file:///tmp/s s3://b/p?region=r ftp://x redis://h:99999/0 webdavs://u:p@h/x s3:// file://h/x",
    "cache-limit": "20G 1 1M",
    "universal": "1 0 maybe true",
    "no-share-ptx": "1 0 maybe true",
    "no-parts": "1 0 maybe true",
}
_KNOWN = _listed(
    "flash-attn flash-attn-3 flashattn-hopper sageattention sageattention==2.2.0 causal-conv1d mamba-ssm grouped-gemm "
    "deepspeed flash-attn==2.7.2.post1 flash-attn==2.7.2 flash-attn@v2.8.3 thing thing==1.0 ./tree ./tree ./tree "
    "tree.zip ./archive.tar.gz ./own.toml ./own.toml ./own.toml ./own.toml==1.0 thing"
)
_STRANGE = _listed(
    ". .. odd nothing-here git+https://x.example/r.git@main thing@main a[b] a;b flash-attn>=2 flash_attn Flash.Attn "
    "https://x.example/a.tar.gz ./no-such ~nobody/x ~ /dev/null git+ssh://a@b:c/d @ a@ git+ git+file://"
)


def _seldom(often: st.SearchStrategy[str], seldom: st.SearchStrategy[str], one_in: int = 8) -> st.SearchStrategy[str]:
    return st.integers(1, one_in).flatmap(lambda drawn: seldom if drawn == one_in else often)


_PACKAGES = _seldom(
    st.sampled_from(_KNOWN),
    st.one_of(
        st.sampled_from(_STRANGE),
        st.builds("{}=={}".format, st.sampled_from(["flash-attn", "thing", "sageattention", "./own.toml"]), _VERSIONS),
        st.builds("{}=={}".format, st.sampled_from(["flash-attn", "thing", "./own.toml"]), _NOISE | _NUMBERS),
        st.builds("{}{}".format, st.sampled_from(_KNOWN), _ODD),
        _NOISE,
        _ODD,
    ),
    5,
)


def _values(name: str) -> st.SearchStrategy[str]:
    right = st.sampled_from(_RIGHT[name].split())
    wrong = st.one_of(st.builds("{}{}".format, right, _ODD | _NOISE), _NOISE, _ODD, _NUMBERS, _VERSIONS)
    return _seldom(right, wrong)


# Those that say what a kernel is are given more often than those that are checked at once.
_OPTIONS = st.sampled_from(
    [*(option.name for option in OPTIONS), "torch", "python", "cuda", "universal", "source", "gpu"]
)
_FLAGS = st.sampled_from(_listed("--explain --json --debug --plain --check --out --no-such -x --help=1"))
_OTHERS = ("extend", "audit", "check", "bench", "packages", "doctor", "plam", "build")


@st.composite
def _command_line(draw: st.DrawFn) -> list[str]:
    verb = draw(_seldom(st.just("plan"), st.sampled_from(_OTHERS), 10))
    if verb not in ("plan", "build"):
        files = st.sampled_from(
            ["archive.tar.gz", "tree.zip", "offered/thing-1.0-py3-none-any.whl", "own.toml", "tree", "no"]
        )
        return [verb, *draw(st.lists(files | _ODD, max_size=2)), *draw(st.lists(_FLAGS | _NOISE, max_size=2))]
    words = [verb, draw(_PACKAGES), *draw(_seldom(st.just(""), _PACKAGES, 10)).split(" ", 1)]
    words = [verb, *(word for word in words[1:] if word)] if draw(st.integers(0, 20)) else words
    named = draw(st.lists(_OPTIONS, max_size=3, unique=True))
    for name in named:
        if name in ("universal", "no-share-ptx", "no-parts"):
            words.append(f"--{name}")
        else:
            words.append(f"--{name}={draw(_values(name))}")
    if not draw(st.integers(0, 9)):
        words.append(draw(_FLAGS | _NOISE))
    return words if "gpu" in named or not draw(st.integers(0, 9)) else [*words, "--gpu", "H100"]


# --- files


def _toml_value(depth: int = 2) -> st.SearchStrategy[str]:
    plain = st.one_of(
        st.sampled_from(["3", "-1", "2.11", "3.10", "true", "nan", "inf", "1979-05-27", '""', '"x"', "[]", "{}", "48"]),
        _NUMBERS,
        st.sampled_from([word for words in _RIGHT.values() for word in words.split()]).map(_quoted),
        (_VERSIONS | _NOISE | _ODD).map(_quoted),
    )
    if not depth:
        return plain
    inner = _toml_value(depth - 1)
    return st.one_of(
        plain,
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.builds(lambda key, value: f"{{ {key} = {value} }}", st.sampled_from(["a", "name", '""', '"1.0"']), inner),
    )


def _quoted(text: str) -> str:
    letters = (one if one.isalnum() or one in " .,-+:/@" else f"\\u{min(ord(one), 0xD7FF):04x}" for one in text)
    return '"' + "".join(letters) + '"'


@st.composite
def _project(draw: st.DrawFn) -> str:
    heads = ("[tool]", "[[tool.attnforge]]", "tool = 3", "[tool]\nattnforge = 3", "")
    lines = [draw(_seldom(st.just("[tool.attnforge]"), st.sampled_from(heads)))]
    for name in draw(st.lists(_OPTIONS | st.sampled_from(["out", "profil"]), max_size=2, unique=True)):
        value = _values(name).map(_quoted) if name in _RIGHT else _toml_value()
        lines.append(f"{name} = {draw(_seldom(value, _toml_value(), 3))}")
    return draw(_damaged("\n".join(lines)))


def _damaged(text: str, one_in: int = 6) -> st.SearchStrategy[str]:
    """Leave a text mostly as it is; else put noise into it, or take a piece out."""

    def put(at: int, noise: str, cut: int) -> str:
        place = at % (len(text) + 1)
        return text[:place] + noise + text[place + cut :]

    noise = st.one_of(_ODD, _NOISE, _NUMBERS, st.just("[" * 3000))
    return _seldom(st.just(text), st.builds(put, st.integers(0, 10**5), noise, st.integers(0, 30)), one_in)


_PKG_INFO = "Metadata-Version: 2.1\nName: {}\nVersion: {}\n\nText\n"
_SETUP = "from setuptools import setup\nNAME = {!r}\nsetup(name=NAME, version={!r}, packages=[])\n"
_CUDA_SETUP = (
    "from setuptools import setup\nfrom torch.utils.cpp_extension import CUDAExtension, BuildExtension\n"
    "setup(name={!r}, version={!r}, ext_modules=[CUDAExtension('x', ['x.cu'])], "
    "cmdclass={{'build_ext': BuildExtension}})\n"
)
_PYPROJECT = "[build-system]\nrequires = {}\nbuild-backend = {}\n[project]\nname = {}\nversion = {}\n[tool.x]\ny = {}\n"
_RIGHT_PYPROJECT = ('["setuptools"]', '"setuptools.build_meta"', '"thing"', '"1.0"', "3")
_CFG = "[metadata]\nname = {}\nversion = {}\n[options]\next_modules =\n"


@st.composite
def _sources(draw: st.DrawFn) -> dict[str, str]:
    name = _seldom(
        st.sampled_from(["thing", "thing", "flash-attn"]), st.sampled_from(["a/b", "a b", "x" * 300]) | _NOISE | _ODD
    )
    version = _seldom(st.just("1.0"), st.one_of(_VERSIONS, _NOISE, _NUMBERS, _ODD), 4)
    templates = {"PKG-INFO": _PKG_INFO, "setup.py": draw(st.sampled_from([_SETUP, _CUDA_SETUP])), "setup.cfg": _CFG}
    files = {}
    for file, template in templates.items():
        if file == "setup.py" or draw(st.booleans()):
            files[file] = draw(_damaged(template.format(draw(name), draw(version))))
    if draw(st.booleans()):
        values = [draw(_seldom(st.just(right), _toml_value())) for right in _RIGHT_PYPROJECT]
        whole = draw(st.integers(0, 9))
        files["pyproject.toml"] = draw(
            _damaged(_PYPROJECT.format(*values) if whole else f"build-system = {values[0]}\n")
        )
    if draw(st.booleans()):
        files["x.cu"] = "// x\n"
    return files


_RECIPES = sorted(
    entry.joinpath("recipe.toml").read_text(encoding="utf-8")
    for entry in resources.files("attnforge.recipes").iterdir()
    if entry.is_dir() and entry.joinpath("recipe.toml").is_file()
)


@st.composite
def _recipe(draw: st.DrawFn) -> str:
    """Take a recipe of attnforge's with one line replaced, left out or said twice."""
    lines = draw(st.sampled_from(_RECIPES)).splitlines()
    keyed = [at for at, line in enumerate(lines) if " = " in line]
    at = draw(st.sampled_from(keyed))
    key, _, value = lines[at].partition(" = ")
    if value.startswith('"') and draw(st.booleans()):
        lines[at] = f"{key} = {draw((_VERSIONS | _NOISE | _ODD | _NUMBERS).map(_quoted))}"
    else:
        replaced = _toml_value().map(lambda text: f"{key} = {text}")
        lines[at] = draw(_seldom(replaced, st.sampled_from(["", lines[at - 1], lines[at]]), 4))
    return draw(_damaged("\n".join(lines), 10))


_ARCHIVES = _listed(
    "thing-1.0.tar.gz thing-1.0.zip thing-.tar.gz odd-1.0+!!.tar.gz odd-9.tar.xz thing-99999.tar.bz2 -1.tar.gz "
    f"thing-1.0-py3-none-any.whl thing-{'9' * 180}.tar.gz flash_attn-2.7.4.post1.tar.gz deepspeed-0.19.8.tar.gz"
)


@dataclass(frozen=True)
class Case:
    """One call of attnforge, and the files that it finds in its folder."""

    words: list[str]
    environ: dict[str, str]
    project: str
    sources: dict[str, str]
    recipe: str
    damage: tuple[int, bytes]
    offered: list[str] = field(default_factory=list)
    torch: str = ""
    environment: Installed | str = "it hangs"


def _environments() -> st.SearchStrategy[Installed | str]:
    """Return what an interpreter that is asked says, or why it says nothing."""
    torches = ["", "2.11.0", "2.7.1+cu126", "2.12.0a0+git1", "2.6.0a0+e.nv25.01", "2.99.0", "nightly", "2.11.0+!"]
    return st.just("it hangs") | st.builds(
        Installed,
        python=st.just("/e/bin/python"),
        version=st.sampled_from(["3.12.1", "3.9.18", "3.15.0a1", "3.14.0"]),
        prefix=st.sampled_from(["/e", "/e\x1b[2K"]),
        named_by=st.just("--env"),
        has_headers=st.sampled_from([True, True, False]),
        free_threaded=st.sampled_from([False, False, True]),
        torch=st.sampled_from([*torches, "9" * 300]),
        calls_itself=st.sampled_from([*torches, "2.11.0+cu130", "2.99.0+cu140"]),
        cuda=st.sampled_from(["13.0", "13.0", "12.6", "11.8", "14.0", "", "x"]),
        rocm=st.sampled_from(["", "", "6.4"]),
        cxx=st.sampled_from([17, 20]),
        trouble=st.sampled_from(["", "", "ImportError: libcudnn.so.9"]),
    )


@st.composite
def _environment(draw: st.DrawFn) -> dict[str, str]:
    environ = {}
    if not draw(st.integers(0, 3)):
        name = draw(_OPTIONS)
        environ["ATTNFORGE_" + name.upper().replace("-", "_")] = draw(_values(name))
    if not draw(st.integers(0, 7)):
        urls = [
            "notaurl",
            "https://",
            "http://[::1",
            "https://h:99999/simple",
            "ftp://x/y",
            "file:///no",
            "",
            "x y",
            "/",
        ]
        others = {
            "ATTNFORGE_GPUS": _NOISE,
            "ATTNFORGE_OUT": _ODD,
            "PIP_INDEX_URL": st.sampled_from(urls),
            "PIP_EXTRA_INDEX_URL": st.sampled_from(urls),
            "PIP_FIND_LINKS": st.sampled_from([*urls, "offered", "./own.toml", "/no", "https://x.example/\t"]),
            "PIP_TIMEOUT": _NUMBERS,
            "PIP_CERT": st.sampled_from(["/no", "/dev/null", "."]),
            "PIP_CONFIG_FILE": st.sampled_from(["/dev/null", "./own.toml", "."]),
            "UV_INDEX": st.sampled_from(["a=b", "=x", "name=https://x.example"]),
            "UV_NO_CONFIG": st.just(""),
            "UV_CONFIG_FILE": st.sampled_from(["./own.toml", ".", "pyproject.toml"]),
            "AWS_REGION": _NOISE,
            "HOME": st.sampled_from(["", "/no", "~", "relative"]),
        }
        key = draw(st.sampled_from(sorted(others)))
        environ[key] = draw(others[key])
        if key.startswith("PIP_") and "INDEX" in key:
            environ["PIP_NO_INDEX"] = ""
    return {key: value.replace("\x00", "") for key, value in environ.items()}


def cases() -> st.SearchStrategy[Case]:
    """Return calls with all that they read."""
    return st.builds(
        Case,
        words=_command_line(),
        environ=_environment(),
        project=_seldom(st.just(""), _project(), 3),
        sources=_sources(),
        recipe=_recipe(),
        damage=st.tuples(st.integers(0, 2000), st.sampled_from([b"", b"", b"\xff\xff"]) | st.binary(max_size=6)),
        offered=st.lists(st.sampled_from(_ARCHIVES), max_size=2, unique=True).map(lambda names: [_ARCHIVES[0], *names]),
        torch=st.sampled_from(["", "", "", "2.11.0", "2.11.0+cu126", "2.11.0+cpu", "2.3.1", "2.12.0a0+git", "x"]),
        environment=_environments(),
    )


# --- a call


def run(case: Case, host: Host) -> int:
    """Run a call in a folder of its own, on a machine without network or programs; return the exit code.

    What attnforge would call its own fault is raised. No wheel is built: a build ends when it has been planned.
    """
    with _folder(case) as folder:
        environ = {
            "HOME": str(folder),
            "PATH": "",
            "UV_NO_CONFIG": "1",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(folder / "offered"),
            **case.environ,
            "ATTNFORGE_CACHE": str(folder / "cache"),
        }
        machine = host.model_copy(update={"torch": case.torch, "toolkits": _TOOLKITS})
        with (
            mock.patch.object(machines, "probe", lambda *_: machine),
            mock.patch.object(Inquirer, "_asked", lambda *_: case.environment),
            mock.patch.object(build_verb, "build", _planned_only),
            mock.patch.object(crash, "write_crash", _reraise),
            mock.patch("socket.getaddrinfo", side_effect=OSError(-2, "no network")),
        ):
            out, err = io.StringIO(), io.StringIO()
            try:
                return program.main(case.words, environ, out, err)
            except SystemExit as ended:
                return int(ended.code or 0)


def _planned_only(*_: object) -> None:
    raise RequestError("it was planned")


def _reraise(*_: object) -> Path:
    error = sys.exc_info()[1]
    assert error is not None
    raise AssertionError("this would be our own fault") from error


@contextmanager
def _folder(case: Case) -> Iterator[Path]:
    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        _write(folder / "pyproject.toml", case.project)
        for name, text in case.sources.items():
            _write(folder / "tree" / name, text)
        _write(folder / "own.toml", case.recipe)
        (folder / "offered").mkdir()
        _archives(folder, case)
        os.chdir(folder)
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape" if text.isprintable() else "replace"))


def _archives(folder: Path, case: Case) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        for name, text in case.sources.items():
            info = tarfile.TarInfo(f"thing-1.0/{name}")
            data = text.encode("utf-8", "replace")
            info.size = len(data)
            bundle.addfile(info, io.BytesIO(data))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as bundle_zip:
        for name, text in case.sources.items():
            bundle_zip.writestr(f"thing-1.0/{name}", text.encode("utf-8", "replace"))
    (folder / "archive.tar.gz").write_bytes(_hit(packed.getvalue(), case.damage))
    (folder / "tree.zip").write_bytes(_hit(zipped.getvalue(), case.damage))
    for name in case.offered:
        place = folder / "offered" / name
        place.write_bytes(zipped.getvalue() if name.endswith((".zip", ".whl")) else packed.getvalue())


def _hit(data: bytes, damage: tuple[int, bytes]) -> bytes:
    at, noise = damage
    place = at % (len(data) + 1)
    return data[:place] + noise + data[place + len(noise) :]

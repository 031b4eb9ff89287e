"""Stands in for torch.utils.cpp_extension: the same outward behaviour, written anew.

What counts to a build: which environment variables are read (CUDA_HOME, PYTORCH_NVCC, CXX, MAX_JOBS,
TORCH_CUDA_ARCH_LIST, TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES), the form of build.ninja with its two rules and its
quoting, the calls ``ninja --version`` and ``ninja -v [-j N]`` in the build folder, the refusal of an nvcc of another
major, and that linking is left to setuptools.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from torch.version import cuda as TORCH_CUDA  # noqa: N812

CUDA_HOME = os.environ.get("CUDA_HOME")

_TORCH = Path(__file__).parent.parent

_NINJA = """\
ninja_required_version = 1.3
cxx = {cxx}
nvcc = {nvcc}

cflags = {cflags}
post_cflags = {post_cflags}
cuda_cflags = {cuda_cflags}
cuda_post_cflags = {cuda_post_cflags}
cuda_dlink_post_cflags = 
ldflags = 

rule compile
  command = $cxx -MMD -MF $out.d $cflags -c $in -o $out $post_cflags
  depfile = $out.d
  deps = gcc

rule cuda_compile
  depfile = $out.d
  deps = gcc
  command = $nvcc {dependencies}$cuda_cflags -c $in -o $out $cuda_post_cflags



{builds}





"""  # noqa: W291 - PyTorch's own file has these spaces


def include_paths():
    return [str(_TORCH / "include"), str(Path(CUDA_HOME or "") / "include")]


def library_paths():
    return [str(_TORCH / "lib"), str(Path(CUDA_HOME or "") / "lib64")]


def CppExtension(name, sources, **options):  # noqa: N802
    return _extension(name, sources, ["c10"], options)


def CUDAExtension(name, sources, **options):  # noqa: N802
    if not CUDA_HOME:
        raise OSError("CUDA_HOME environment variable is not set. Please set it to your CUDA install root.")
    return _extension(name, sources, ["c10", "cudart"], options)


def _extension(name, sources, libraries, options):
    options["include_dirs"] = [*options.get("include_dirs", []), *include_paths()]
    options["library_dirs"] = [*options.get("library_dirs", []), *library_paths()]
    options["libraries"] = [*options.get("libraries", []), *libraries]
    return Extension(name, sources, language="c++", **options)


class BuildExtension(build_ext):
    @classmethod
    def with_options(cls, **options):
        return type(
            cls.__name__,
            (cls,),
            {"__init__": lambda self, *rest, **own: cls.__init__(self, *rest, **{**own, **options})},
        )

    def __init__(self, *rest, use_ninja=True, **options):
        super().__init__(*rest, **options)
        self.use_ninja = use_ninja

    def build_extensions(self):
        subprocess.run(["ninja", "--version"], check=True, stdout=subprocess.DEVNULL)
        _check_nvcc()
        self.compiler.src_extensions.append(".cu")
        super().build_extensions()

    def build_extension(self, ext):
        plain = self.compiler.compile
        self.compiler.compile = lambda sources, **options: self._compile(ext, sources, **options)
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = plain

    def _spawn(self, made, source, own, options):
        """Compile without ninja, as distutils does."""
        Path(made).parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".cu"):
            nvcc = Path(CUDA_HOME) / "bin" / "nvcc"
            flags = [*(own.get("nvcc") or ()), *_architectures(own.get("nvcc") or ())]
            command = [nvcc, *options, "-c", source, "-o", made, "--compiler-options", "-fPIC", *flags]
        else:
            command = [*self.compiler.compiler_so, *options, "-c", source, "-o", made, *(own.get("cxx") or ())]
        subprocess.run(command, check=True)

    def _compile(self, ext, sources, output_dir=None, macros=None, include_dirs=None, extra_postargs=None, **_):
        names = self.compiler.object_filenames(sources, output_dir=output_dir)
        objects = [str(Path(name).absolute()) for name in names]
        folder = Path(self.build_temp).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        own = extra_postargs if isinstance(extra_postargs, dict) else {"cxx": extra_postargs, "nvcc": extra_postargs}
        includes = [f"-I{path}" for path in (*(include_dirs or ()), *self.compiler.include_dirs)]
        defines = [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in macros or ()]
        shared = ["-DTORCH_API_INCLUDE_EXTENSION_H", f"-DTORCH_EXTENSION_NAME={ext.name.split('.')[-1]}"]
        nvcc_own = [*(own.get("nvcc") or ()), *shared]
        pairs = zip(objects, [str(Path(source).absolute()) for source in sources], strict=True)
        (folder / "build.ninja").write_text(
            _NINJA.format(
                cxx=os.environ.get("CXX", "c++"),
                nvcc=os.environ.get("PYTORCH_NVCC") or str(Path(CUDA_HOME) / "bin" / "nvcc"),
                cflags=_words([*self.compiler.compiler_so[1:], *defines, *includes]),
                post_cflags=_words([*(own.get("cxx") or ()), *shared, "-std=c++17"]),
                cuda_cflags=_words([*defines, *includes]),
                # The quotes inside the quotes are PyTorch's.
                cuda_post_cflags=_words(
                    ["--compiler-options", "'-fPIC'", *nvcc_own, *_architectures(nvcc_own), "-std=c++17"]
                ),
                dependencies="" if _is_set("TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES") else "-MD -MF $out.d ",
                builds="\n".join(_build(*pair) for pair in pairs),
            ),
            encoding="utf-8",
        )
        if not self.use_ninja:
            for made, source in _each(objects, sources):
                self._spawn(made, source, own, includes + defines + shared)
            return objects
        jobs = os.environ.get("MAX_JOBS")
        command = ["ninja", "-v", *(["-j", jobs] if jobs else [])]
        if subprocess.run(command, cwd=folder, check=False).returncode:
            raise RuntimeError("Error compiling objects for extension")
        return objects


def _each(objects, sources):
    return zip(objects, [str(Path(source).absolute()) for source in sources], strict=True)


def _is_set(name):
    return os.environ.get(name) == "1"


def _words(words):
    return " ".join(shlex.quote(word) for word in words).replace("$", "$$")


def _build(made, source):
    rule = "cuda_compile" if source.endswith(".cu") else "compile"
    return f"build {_path(made)}: {rule} {_path(source)}"


def _path(path):
    return path.replace("$", "$$").replace(":", "$:").replace(" ", "$ ")


def _architectures(flags):
    if any("arch" in flag for flag in flags):
        return []
    listed = re.split("[; ]", os.environ.get("TORCH_CUDA_ARCH_LIST", "7.5"))
    digits = [entry.replace(".", "") for entry in listed]
    return [f"-gencode=arch=compute_{number},code=sm_{number}" for number in digits]


def _check_nvcc():
    nvcc = Path(CUDA_HOME or "") / "bin" / "nvcc"
    said = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"release (\d+\.\d+)", said)[1]
    if found.split(".")[0] != TORCH_CUDA.split(".")[0]:
        raise RuntimeError(
            f"The detected CUDA version ({found}) mismatches the version that was used to compile PyTorch"
            f" ({TORCH_CUDA}). Please make sure to use the same CUDA versions."
        )

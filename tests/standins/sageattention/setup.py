"""The layout of SageAttention 2.2.0's build, with kernels of our own: its settings, its modules and its faults.

One list of compiler flags, with one list of architectures, serves all extensions, so that for 8.9 and 9.0 together the
sources of _qattn_sm90 are given an architecture that they cannot be compiled for (upstream's issue 291).
"""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import torch
from packaging.version import Version
from setuptools import find_packages, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CUDAExtension

HERE = Path(__file__).parent
LATER = (HERE / "build_mode.txt").read_text(encoding="utf-8").strip() == "later"
SKIPPED = os.environ.get("SAGEATTN_SKIP_CUDA_BUILD", "0").upper() in {"1", "TRUE", "YES"} or "sdist" in sys.argv

# What nvcc calls a capability. Any other is passed over without a word, as upstream does.
NUMBERS = {"8.0": "80", "8.6": "86", "8.9": "89", "9.0": "90a", "12.0": "120a"}
if LATER:
    NUMBERS |= {"10.0": "100a", "12.1": "121a"}

# The lowest nvcc for a capability, and for all.
FLOORS = {"8.9": "12.4", "9.0": "12.3", "12.0": "12.8"}
FLOOR = "12.0"

# The capabilities that call for an extension; the tag has _qattn_sm89 for 8.9 and 12.0 alone.
SERVED_BY_SM89 = set(NUMBERS) - {"8.0", "8.6"} if LATER else {"8.9", "12.0"}

CXX_FLAGS = ["-g", "-O3", "-fopenmp", "-lgomp", "-std=c++17", "-DENABLE_BF16"]
NVCC_FLAGS = [
    "-O3",
    "-std=c++17",
    "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__",
    "--use_fast_math",
    "--threads=8",
    "-Xptxas=-v",
    "-diag-suppress=174",
]


def named_capabilities() -> set[str]:
    """The capabilities in TORCH_CUDA_ARCH_LIST, such as 9.0 or 9.0+PTX: cut at ``;`` and ``,`` and not at spaces."""
    words = os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(",", ";").split(";")
    found = set()
    for word in (word.strip().lower() for word in words if word.strip()):
        number = word.removesuffix("+ptx").replace("sm_", "").replace("compute_", "").replace("a", "")
        if len(number) == 2 and number.isdigit():
            number = f"{number[0]}.{number[1]}"
        found.add(number + ("+PTX" if word.endswith("+ptx") else ""))
    return found


def present_capabilities() -> set[str]:
    """The capabilities of the GPUs of this machine."""
    found = set()
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        if major < 8:
            warnings.warn(f"skipping GPU {index} with compute capability {major}.{minor}", stacklevel=1)
        else:
            found.add(f"{major}.{minor}")
    return found


def capabilities() -> list[str]:
    """What to compile for. Raises RuntimeError if nothing says."""
    found = (named_capabilities() if LATER else set()) or present_capabilities()
    if not found:
        raise RuntimeError(
            "No target compute capabilities. Set TORCH_CUDA_ARCH_LIST or build on a machine with GPUs."
            if LATER
            else "No GPUs found. Please specify the target GPU architectures or build on a machine with GPUs."
        )
    print(f"Target compute capabilities: {found}")
    return sorted(found)


def check_toolkit(wanted: list[str]) -> None:
    """Raise RuntimeError for an nvcc that is too old for what is wanted."""
    words = subprocess.check_output([f"{CUDA_HOME}/bin/nvcc", "-V"], text=True).split()
    nvcc = Version(words[words.index("release") + 1].rstrip(","))
    if nvcc < Version(FLOOR):
        raise RuntimeError(f"CUDA {FLOOR} or higher is required to build the package.")
    for capability, floor in FLOORS.items():
        if nvcc < Version(floor) and any(name.startswith(capability) for name in wanted):
            raise RuntimeError(f"CUDA {floor} or higher is required for compute capability {capability}.")


def architecture_flags(wanted: list[str]) -> list[str]:
    """The -gencode options, the same for every source of every extension."""
    flags = []
    for capability in wanted:
        number = NUMBERS.get(capability.removesuffix("+PTX"))
        if number is None:
            continue
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if capability.endswith("+PTX"):
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags


def extensions() -> list[CUDAExtension]:
    """The extension modules that the target needs."""
    if CUDA_HOME is None:
        raise RuntimeError("Cannot find CUDA_HOME. CUDA must be available to build the package.")
    wanted = capabilities()
    check_toolkit(wanted)
    present = {name.removesuffix("+PTX") for name in wanted}
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    flags = {
        "cxx": [*CXX_FLAGS, *os.environ.get("CXX_APPEND_FLAGS", "").split(), abi],
        "nvcc": [*NVCC_FLAGS, *os.environ.get("NVCC_APPEND_FLAGS", "").split(), abi, *architecture_flags(wanted)],
    }

    def extension(name: str, folder: str, sources: list[str], **options: object) -> CUDAExtension:
        paths = [f"csrc/{folder}/{source}" for source in sources]
        return CUDAExtension(f"sageattention.{name}", paths, extra_compile_args=flags, **options)

    found = []
    if present & set(NUMBERS):
        found.append(extension("_qattn_sm80", "qattn", ["pybind_sm80.cpp", "qk_int_sv_f16_cuda_sm80.cu"]))
    if present & SERVED_BY_SM89:
        units = sorted(path.name for path in (HERE / "csrc" / "qattn").glob("sm89_*.cu"))
        found.append(extension("_qattn_sm89", "qattn", ["pybind_sm89.cpp", *units]))
    if "9.0" in present:
        sources = ["pybind_sm90.cpp", "qk_int_sv_f8_cuda_sm90.cu"]
        found.append(extension("_qattn_sm90", "qattn", sources, extra_link_args=["-lcuda"]))
    found.append(extension("_fused", "fused", ["pybind.cpp", "fused.cu"]))
    return found


class BuildSeparately(BuildExtension):
    """Builds several extensions at once, each in a thread and a folder of its own, with a ninja of its own."""

    here = threading.local()
    wrapping = threading.Lock()

    def finalize_options(self) -> None:
        """Take the number of extensions at a time from the environment."""
        self.parallel = int(os.environ.get("EXT_PARALLEL") or os.environ.get("MAX_JOBS") or 4)
        os.environ.setdefault("MAX_JOBS", "32")
        super().finalize_options()

    def build_extension(self, ext: CUDAExtension) -> None:
        """Build one extension. All share one compiler object, which learns here in which folder to work."""
        with self.wrapping:
            if not hasattr(self.compiler, "shared_compile"):
                self.compiler.shared_compile = self.compiler.compile
                self.compiler.compile = self.compile_apart
        self.here.folder = ext.name
        super().build_extension(ext)

    def compile_apart(self, *words: object, output_dir: str, **options: object) -> list[str]:
        """Compile into this thread's folder under the one that is shared."""
        return self.compiler.shared_compile(*words, output_dir=str(Path(output_dir, self.here.folder)), **options)


setup(
    name="sageattention",
    version="2.2.0",
    description="A stand-in for SageAttention: its build interface, with kernels of attnforge's own.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["sageattention"]),
    python_requires=">=3.9",
    ext_modules=[] if SKIPPED else extensions(),
    cmdclass={} if SKIPPED else {"build_ext": BuildSeparately},
)

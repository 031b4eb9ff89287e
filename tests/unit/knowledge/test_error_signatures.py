from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnforge.knowledge.error_signatures import Signature, all_signatures, match_signature, signature

# The messages of shared knowledge about upstream, as tools print them: by the signature that has to recognize them.
MESSAGES = [
    ("no-torch", "ModuleNotFoundError: No module named 'torch'"),
    ("killed", "nvcc error   : 'cicc' died due to signal 9 (Kill signal)"),
    ("killed", "Killed"),
    ("half-bytecode", "EOFError: marshal data too short"),
    ("killed", "/bin/sh: line 1: 4242 Killed                  nvcc -c x.cu"),
    ("killed", "g++: fatal error: Killed signal terminated program cc1plus"),
    ("killed", "collect2: fatal error: ld terminated with signal 9 [Killed]"),
    ("out-of-memory", "cc1plus: out of memory allocating 65536 bytes after a total of 1234 bytes"),
    ("out-of-memory", "terminate called after throwing an instance of 'std::bad_alloc'"),
    (
        "cxx11-abi",
        "ImportError: flash_attn_2_cuda.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs",
    ),
    (
        "cxx11-abi",
        "undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
    ),
    ("torch-minor", "ImportError: x.so: undefined symbol: _ZN3c104cuda9SetDeviceEa"),
    (
        "cuda-mismatch",
        "RuntimeError: The detected CUDA version (12.6) mismatches the version that was used to compile\nPyTorch",
    ),
    ("no-nvcc", "OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root."),
    ("no-nvcc", "flash_attn was requested, but nvcc was not found."),
    ("no-nvcc", "/bin/sh: 1: nvcc: not found"),
    ("no-nvcc", "FileNotFoundError: [Errno 2] No such file or directory: '/usr/local/cuda/bin/nvcc'"),
    ("no-ninja", "could not find ninja.. Falling back to using the slow distutils backend."),
    ("precompiled-wheel", "Precompiled wheel not found. Building from source..."),
    ("precompiled-wheel", "urllib.error.HTTPError: HTTP Error 404: Not Found"),
    ("download-failed", "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>"),
    (
        "download-failed",
        "requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded with url: /x.whl",
    ),
    ("glibc-too-old", "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found (required by x.so)"),
    ("glibc-too-old", "libstdc++.so.6: version `GLIBCXX_3.4.26' not found"),
    ("no-kernel-image", "CUDA error: no kernel image is available for execution on the device"),
    ("fa3-below-hopper", "CUDA error (/src/hopper/flash_fwd_launch_template.h:188): invalid argument"),
    ("no-gpus-found", "RuntimeError: No GPUs found. Please specify the target GPU architectures"),
    ("no-driver-library", "/usr/bin/ld: cannot find -lcuda: No such file or directory"),
    ("no-driver-library", "/usr/bin/ld: cannot find -lcuda"),
    ("cudart-missing", "/usr/bin/ld: cannot find -lcudart: No such file or directory"),
    (
        "wgmma-target",
        "ptxas /tmp/k.ptx, line 21; error   : Instruction 'wgmma.fence' not supported on .target 'sm_90'",
    ),
    ("wgmma-target", "error   : Instruction 'wgmma.mma_async with FP8' cannot be compiled for architecture 'sm_89'"),
    ("sage-sm89-not-built", "AssertionError: SM89 kernel is not available. Make sure you GPUs with compute capability"),
    (
        "host-compiler-too-new",
        "host_config.h:137:2: error: #error -- unsupported GNU version! gcc versions later than 15",
    ),
    ("host-compiler-too-new", "torch/include/pybind11/detail/../cast.h:45:120: error: expected template-name"),
    (
        "host-compiler-too-old",
        "#error You're trying to build PyTorch with a too old version of GCC. We need GCC 9 or later.",
    ),
    ("cutlass-missing", "flash.h:5:10: fatal error: cute/tensor.hpp: No such file or directory"),
    ("cutlass-missing", 'x.cu(1): catastrophic error: cannot open source file "cutlass/numeric_types.h"'),
    (
        "glibc-too-new",
        'bits/mathcalls.h(79): error: exception specification is incompatible with that of previous function "cospi" '
        "(declared at line 5554 of crt/math_functions.h)",
    ),
    (
        "glibc-too-new",
        'bits/mathcalls.h(206): error: exception specification is incompatible with that of previous function "rsqrt"',
    ),
    ("partial-toolkit", "CUDAContext.h:6:10: fatal error: cusparse.h: No such file or directory"),
    ("partial-toolkit", "fatal error: cusolverDn.h: No such file or directory"),
    (
        "ptxas-warpgroup-wait",
        "ptxas info    : (C7517) Potential Performance Loss: warpgroup.wait is injected in around",
    ),
    ("fa3-compiler-crash", "nvcc error   : 'cudafe++' died due to signal 11 (Invalid memory reference)"),
    ("fa3-cuda-floor", "RuntimeError: FlashAttention-3 is only supported on CUDA 12.3 and above"),
    ("cross-device", "OSError: [Errno 18] Invalid cross-device link: '/tmp/a.whl' -> '/home/b.whl'"),
    ("imported-before-torch", "ImportError: libc10.so: cannot open shared object file: No such file or directory"),
    ("ptx-too-new", "CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    ("ptx-too-new", "cudaErrorUnsupportedPtxVersion"),
    (
        "graph-break",
        "Graph break from `Tensor.item()`: builtin: <built-in method fwd of PyCapsule object>: PyCapsule.fwd",
    ),
    ("disk-full", "/usr/bin/as: fatal error: can't write 12 bytes to section .text: No space left on device"),
    ("unsupported-architecture", "nvcc fatal   : Unsupported gpu architecture 'compute_120'"),
    ("python-headers-missing", "fatal error: Python.h: No such file or directory"),
    ("no-host-compiler", "/bin/sh: 1: g++: not found"),
    ("no-host-compiler", "nvcc fatal   : Failed to preprocess host compiler properties."),
    ("header-missing", "x.cpp:1:10: fatal error: boost/any.hpp: No such file or directory"),
]


@pytest.mark.parametrize(("identifier", "message"), MESSAGES)
def test_each_message_is_recognized(identifier: str, message: str) -> None:
    found = match_signature(message)
    assert found is not None
    assert found.id == identifier


@pytest.mark.parametrize(("identifier", "message"), MESSAGES)
def test_messages_are_recognized_inside_a_log(identifier: str, message: str) -> None:
    found = match_signature(f"[1/73] nvcc -c x.cu\nIn file included from a.h:1:\n{message}\nninja: build stopped.\n")
    assert found is not None
    assert found.id == identifier


@pytest.mark.parametrize(
    "text",
    [
        "",
        'x.cu(3): error: identifier "foo" is undefined',
        "warning: unused variable",
        "undefined symbol: cublasLtMatmul",
        "No module named 'torchvision'",
        "process was not Killed by us",
        "/usr/bin/ld: cannot find -lcudadevrt2",
        "ModuleNotFoundError: No module named 'torch.utils.missing'",
    ],
)
def test_other_texts_are_not(text: str) -> None:
    assert match_signature(text) is None


def test_every_message_of_the_table_is_covered_here() -> None:
    assert {identifier for identifier, _ in MESSAGES} == {one.id for one in all_signatures() if one.pattern}


@pytest.mark.parametrize("one", all_signatures(), ids=lambda one: str(one.id))
def test_a_signature_says_what_why_and_what_mends_it(one: Signature) -> None:
    assert one.what
    assert one.why
    assert one.hint
    assert "{" not in one.link
    assert one.link == "" or one.link.startswith("https://")


def test_ids_are_unique_and_found() -> None:
    ids = [one.id for one in all_signatures()]
    assert len(ids) == len(set(ids))
    assert [signature(identifier).id for identifier in ids] == ids
    with pytest.raises(KeyError):
        signature("nothing")


def test_the_specific_comes_before_the_general() -> None:
    both = "Precompiled wheel not found.\nfatal error: cute/tensor.hpp: No such file or directory"
    found = match_signature(both)
    assert found is not None
    assert found.id == "cutlass-missing"


@given(st.text())
def test_any_text_is_looked_at(text: str) -> None:
    found = match_signature(text)
    assert found is None or re.search(found.pattern, text, re.MULTILINE)

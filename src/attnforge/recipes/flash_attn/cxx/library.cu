// Made by attnforge. Lies in the kernels library of a universal wheel, which knows no PyTorch.
#include <cuda_runtime.h>
#include <stdexcept>
#include <string>
#include <c10/cuda/CUDAException.h>

${boundary}
static Reporter reporter = nullptr;

void report_to(Reporter given) { reporter = given; }

${check} {
    if (error == cudaSuccess) return;
    // PyTorch clears the last error of its own CUDA runtime. This library has another one, whose next check must not
    // find this error again.
    static_cast<void>(cudaGetLastError());
    if (reporter != nullptr) reporter(error, file, function, line);
    throw std::runtime_error(std::string("CUDA error: ") + cudaGetErrorString(error) + " (" + file + ":" +
                             std::to_string(line) + ", " + function + ")");
}

template<std::size_t...> void boundary() {}
template void ATTNFORGE_BOUNDARY();
#pragma GCC diagnostic pop

}  // namespace attnforge

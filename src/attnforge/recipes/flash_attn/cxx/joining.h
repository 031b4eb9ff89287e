#include <cstdint>
#include <cuda_runtime.h>
#include <c10/cuda/CUDAException.h>

${boundary}
static void torch_error(cudaError_t error, const char *file, const char *function, unsigned line) {
    c10::cuda::c10_cuda_check_implementation(static_cast<int32_t>(error), file, function, line, true);
}

[[gnu::used]] static const bool joined = (report_to(torch_error), ATTNFORGE_BOUNDARY(), true);
#pragma GCC diagnostic pop

}  // namespace attnforge

${asserts}
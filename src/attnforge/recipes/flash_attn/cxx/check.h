#include <cstdint>
#include <cuda_runtime.h>
#include <c10/cuda/CUDAException.h>

namespace attnforge {

${check} {
    c10::cuda::c10_cuda_check_implementation(static_cast<int32_t>(error), file, function, line, true);
}

}  // namespace attnforge

${asserts}
#include <cstddef>
#include <cuda_runtime.h>
#include "flash.h"
namespace attnforge {
using Reporter = void (*)(cudaError_t, const char *, const char *, unsigned);
void report_to(Reporter reporter);
template<std::size_t...> void boundary();
namespace layout {
#ifdef FLASH_NAMESPACE
using namespace FLASH_NAMESPACE;
#else
using ::Flash_fwd_params;
using ::Flash_bwd_params;
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
#define ATTNFORGE_BOUNDARY \
    boundary<sizeof(layout::Flash_fwd_params), alignof(layout::Flash_fwd_params), \
             offsetof(layout::Flash_fwd_params, p_dropout), offsetof(layout::Flash_fwd_params, philox_args), \
             offsetof(layout::Flash_fwd_params, num_splits), sizeof(layout::Flash_bwd_params), \
             offsetof(layout::Flash_bwd_params, deterministic)>
}  // namespace layout

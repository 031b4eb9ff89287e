// A kernel that says who it is. Its traits have the names by which FlashAttention 2's kernels are told apart.
#pragma once
#include "flash.h"

namespace cutlass {
struct half_t { static constexpr const char *name = "fp16"; };
struct bfloat16_t { static constexpr const char *name = "bf16"; };
}  // namespace cutlass

namespace FLASH_NAMESPACE {

template<int Headdim, typename T> struct Flash_fwd_kernel_traits {};
template<int Headdim, typename T> struct Flash_bwd_kernel_traits {};

template<typename Traits, bool Is_causal>
__global__ void flash_kernel(Flash_fwd_params &params, const char *kind, int head_dim, const char *dtype) {
    params.ran = std::string(kind) + " " + std::to_string(head_dim) + " " + dtype + (Is_causal ? " causal" : "");
}

}  // namespace FLASH_NAMESPACE

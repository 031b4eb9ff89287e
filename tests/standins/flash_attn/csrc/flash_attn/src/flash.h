// The declarations that stand between host code and kernels, by the names that FlashAttention 2 gives them.
#pragma once
#include <cuda_runtime.h>
#include <string>
#include "namespace_config.h"

namespace cutlass {
struct half_t;
struct bfloat16_t;
}  // namespace cutlass

namespace FLASH_NAMESPACE {

struct Flash_fwd_params {
    void *knew_ptr = nullptr;
    int *block_table = nullptr;
    int *cache_batch_idx = nullptr;
    void *alibi_slopes_ptr = nullptr;
    float softcap = 0;
    float p_dropout = 1;  // the share that is kept
    int window_size_left = -1, window_size_right = -1;
    bool is_causal = false;
    int num_splits = 0;
    std::string ran;  // which kernel computed the call
};

struct Flash_bwd_params : public Flash_fwd_params {};

template<typename T, int Headdim, bool Is_causal> void run_mha_fwd_(Flash_fwd_params &params, cudaStream_t stream);
template<typename T, int Headdim, bool Is_causal>
void run_mha_fwd_splitkv_dispatch(Flash_fwd_params &params, cudaStream_t stream);
template<typename T, int Headdim, bool Is_causal> void run_mha_bwd_(Flash_bwd_params &params, cudaStream_t stream);

}  // namespace FLASH_NAMESPACE

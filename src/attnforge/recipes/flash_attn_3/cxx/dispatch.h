// Made by attnforge. Included before flash_api_stable.cpp or flash_api.cpp.
#pragma once
#include <cuda_runtime.h>
#include "flash.h"
${refusals}
template<int Arch, typename T, int HeadDim, int HeadDimV, bool Split, bool PagedKVNonTMA, bool HasSoftcap, bool PackGQA>
void attnforge_forward(Flash_fwd_params &params, cudaStream_t stream) {
    attnforge::guard(params);
    if constexpr (attnforge::has_kernel<T, HeadDim>()) {
        run_mha_fwd_<Arch, T, HeadDim, HeadDimV, Split, PagedKVNonTMA, HasSoftcap, PackGQA>(params, stream);
    } else {
        attnforge::no_kernel<T, HeadDim>();
    }
}

template<int Arch, typename T, int HeadDim, bool HasSoftcap>
void attnforge_backward(Flash_bwd_params &params, cudaStream_t stream) {
    if constexpr (attnforge::has_kernel<T, HeadDim>()) {
        run_mha_bwd_<Arch, T, HeadDim, HasSoftcap>(params, stream);
    } else {
        attnforge::no_kernel<T, HeadDim>();
    }
}

#define run_mha_fwd_ attnforge_forward
#define run_mha_bwd_ attnforge_backward

// Made by attnforge. Kernels that do nothing.
#pragma once
${includes}
#ifdef FLASH_NAMESPACE
namespace FLASH_NAMESPACE {
#else
namespace flash {
#endif
template<typename Traits, bool... Flags, typename... Arguments>
__device__ __forceinline__ void attnforge_nothing(const Arguments &...) {}
template<typename Traits, int Rows, int Log_max_splits, bool Is_even_K, typename... Arguments>
__device__ __forceinline__ void attnforge_no_combine(const Arguments &...) {}
template<bool Clear, typename Traits, typename... Arguments>
__device__ __forceinline__ void attnforge_no_dot(const Arguments &...) {}
}
${renames}

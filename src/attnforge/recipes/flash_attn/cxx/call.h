template<typename T, int HeadDim, bool Is_causal>
void attnforge_${kind}(${params} &params, cudaStream_t stream) {
    attnforge::guard(params);
    if constexpr (attnforge::has_kernel<T, HeadDim>()) {
        ${entry}<T, HeadDim, Is_causal>(params, stream);
    } else {
        attnforge::no_kernel<T, HeadDim>();
    }
}

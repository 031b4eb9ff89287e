template<typename T, int HeadDim, bool Is_causal>
void attnforge_split(Flash_fwd_params &params, cudaStream_t stream) {
    if (params.knew_ptr != nullptr || params.block_table != nullptr || params.cache_batch_idx != nullptr) {
        attnforge::left_out(${what}, ${command});
    }
    params.num_splits = 1;
    attnforge_forward<T, HeadDim, Is_causal>(params, stream);
}

template<typename T, int HeadDim, bool Is_causal>
void attnforge_${kind}(${params} &, cudaStream_t) {
    attnforge::left_out(${what}, ${command});
}

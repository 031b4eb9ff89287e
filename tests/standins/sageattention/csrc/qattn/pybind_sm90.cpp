#include <cuda.h>

#include "bind.h"

int attention_f8_sm90(const Problem &problem);

// Whether the driver is one that Hopper's kernels run on. It is the driver's library that answers, as upstream's
// module asks it for tensor maps: that is why this one is linked with -lcuda.
static bool is_available() {
    int version = 0;
    return cuDriverGetVersion(&version) == CUDA_SUCCESS && version >= 12000;
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("qk_int8_sv_f8_accum_f32_attn_inst_buf", &plain<attention_f8_sm90>);
    m.def("qk_int8_sv_f8_accum_f32_fuse_v_scale_attn_inst_buf", &with_scale<attention_f8_sm90>);
    m.def("is_available", &is_available);
}

#include "bind.h"

int attention_f16(const Problem &problem);

// Upstream's variants differ in where they sum; here all sum in 32 bits.
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("qk_int8_sv_f16_accum_f32_attn", &plain<attention_f16>);
    m.def("qk_int8_sv_f16_accum_f16_attn", &plain<attention_f16>);
    m.def("qk_int8_sv_f16_accum_f16_attn_inst_buf", &plain<attention_f16>);
    m.def("qk_int8_sv_f16_accum_f16_fuse_v_mean_attn", &with_mean<attention_f16>);
}

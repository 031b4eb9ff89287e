#include "bind.h"

int attention_f8_accum_f32_fuse_v_scale_attn(const Problem &problem);
int attention_f8_accum_f32_fuse_v_scale_attn_inst_buf(const Problem &problem);
int attention_f8_accum_f16_fuse_v_scale_attn_inst_buf(const Problem &problem);
int attention_f8_accum_f32_fuse_v_scale_fuse_v_mean_attn(const Problem &problem);

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("qk_int8_sv_f8_accum_f32_attn", &plain<attention_f8_accum_f32_fuse_v_scale_attn>);
    m.def("qk_int8_sv_f8_accum_f32_attn_inst_buf", &plain<attention_f8_accum_f32_fuse_v_scale_attn_inst_buf>);
    m.def("qk_int8_sv_f8_accum_f16_attn_inst_buf", &plain<attention_f8_accum_f16_fuse_v_scale_attn_inst_buf>);
    m.def("qk_int8_sv_f8_accum_f32_fuse_v_scale_attn", &with_scale<attention_f8_accum_f32_fuse_v_scale_attn>);
    m.def("qk_int8_sv_f8_accum_f32_fuse_v_scale_attn_inst_buf",
          &with_scale<attention_f8_accum_f32_fuse_v_scale_attn_inst_buf>);
    m.def("qk_int8_sv_f8_accum_f16_fuse_v_scale_attn_inst_buf",
          &with_scale<attention_f8_accum_f16_fuse_v_scale_attn_inst_buf>);
    m.def("qk_int8_sv_f8_accum_f32_fuse_v_scale_fuse_v_mean_attn",
          &with_both<attention_f8_accum_f32_fuse_v_scale_fuse_v_mean_attn>);
}

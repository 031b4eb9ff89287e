// V in e4m3, a scale for each channel and the mean taken out, which is added again. From 8.9 on.
#include "attention.cuh"

int attention_f8_accum_f32_fuse_v_scale_fuse_v_mean_attn(const Problem &problem) { return standin::launch<standin::E4m3>(problem); }

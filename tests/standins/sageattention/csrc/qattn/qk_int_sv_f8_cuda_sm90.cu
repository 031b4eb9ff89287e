// V in e4m3, for sm_90a and nothing else: an instruction of warpgroups is no other architecture's.
#include "attention.cuh"

struct Fence {
    // Orders register accesses before a wgmma. There is none here, so it does nothing but bind the unit to sm_90a.
    static __device__ void run() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
};

int attention_f8_sm90(const Problem &problem) { return standin::launch<standin::E4m3, Fence>(problem); }

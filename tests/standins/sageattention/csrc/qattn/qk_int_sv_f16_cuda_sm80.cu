// V in fp16: every architecture that upstream names.
#include "attention.cuh"

int attention_f16(const Problem &problem) { return standin::launch<__half>(problem); }

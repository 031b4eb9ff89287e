// libcudart.so of the stand-in: a kernel that is launched has been called already, so there is nothing to do.
extern "C" int cudaGetLastError() { return 0; }

// call(kind, head dimension, dtype, causal, asked): which kernel computed a call that asks for these features.
#include <torch/extension.h>
#include <cstring>
#include <stdexcept>
#include "flash.h"

using namespace FLASH_NAMESPACE;

template<typename T, int D, bool Causal> void run(const char *kind, Flash_bwd_params &params) {
    if (!std::strcmp(kind, "backward")) return run_mha_bwd_<T, D, Causal>(params, nullptr);
    if (!std::strcmp(kind, "split")) return run_mha_fwd_splitkv_dispatch<T, D, Causal>(params, nullptr);
    run_mha_fwd_<T, D, Causal>(params, nullptr);
}

template<typename T, int D> void run(const char *kind, Flash_bwd_params &params) {
    params.is_causal ? run<T, D, true>(kind, params) : run<T, D, false>(kind, params);
}

template<typename T> void run(const char *kind, int head_dim, Flash_bwd_params &params) {
    switch (head_dim) {
        case 32: return run<T, 32>(kind, params);
        case 64: return run<T, 64>(kind, params);
        case 96: return run<T, 96>(kind, params);
        case 128: return run<T, 128>(kind, params);
        case 192: return run<T, 192>(kind, params);
        case 256: return run<T, 256>(kind, params);
    }
    throw std::runtime_error("no such head dimension");
}

static void ask(Flash_bwd_params &params, const char *feature) {
    static int something = 0;
    if (!std::strcmp(feature, "alibi")) params.alibi_slopes_ptr = &something;
    if (!std::strcmp(feature, "softcap")) params.softcap = 30;
    if (!std::strcmp(feature, "dropout")) params.p_dropout = 0.9f;
    if (!std::strcmp(feature, "local")) params.window_size_left = 16;
    if (!std::strcmp(feature, "paged")) params.block_table = &something;
}

static PyObject *call(PyObject *, PyObject *arguments) {
    const char *kind, *dtype, *feature;
    int head_dim, causal;
    if (!PyArg_ParseTuple(arguments, "sisps", &kind, &head_dim, &dtype, &causal, &feature)) return nullptr;
    Flash_bwd_params params;
    params.is_causal = causal;
    ask(params, feature);
    try {
        if (!std::strcmp(dtype, "fp16")) run<cutlass::half_t>(kind, head_dim, params);
        else run<cutlass::bfloat16_t>(kind, head_dim, params);
    } catch (const std::exception &error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
    return PyUnicode_FromString((params.ran + (c10::answer() == 42 ? "" : "?")).c_str());
}

static PyMethodDef methods[] = {{"call", call, METH_VARARGS, nullptr}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "flash_attn_2_cuda", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit_flash_attn_2_cuda() { return PyModule_Create(&module); }

#include <torch/extension.h>
#include "kernels.h"

// The sum of what the kernels and PyTorch's library say, so that each of them has to be there.
static PyObject *run(PyObject *, PyObject *argument) {
    double value = PyFloat_AsDouble(argument);
    return PyErr_Occurred() ? nullptr : PyFloat_FromDouble(total(value) + c10::answer());
}

static PyMethodDef methods[] = {{"run", run, METH_O, nullptr}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", __FILE__, -1, methods, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }

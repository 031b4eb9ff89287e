// Stands in for PyTorch's header.
#pragma once
#include <Python.h>

namespace c10 {
int answer();
}

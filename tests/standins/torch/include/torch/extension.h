// Stands in for PyTorch's header.
#pragma once
#include <Python.h>
#include <torch/minor.h>

namespace c10 {
int answer();
}

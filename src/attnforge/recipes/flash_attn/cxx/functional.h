// Made by attnforge. Stands in front of PyTorch's header of that name and includes what flash_api.cpp uses of it.
#pragma once
#include <ATen/TensorIndexing.h>
#include <ATen/ops/_pad_enum.h>
#include <torch/nn/functional/padding.h>
namespace torch { namespace indexing { using namespace at::indexing; } }

// Which version the stand-in says it is; needs nothing of Python.
#pragma once
#define STANDIN_TORCH_MINOR 11

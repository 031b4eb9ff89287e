// Made by attnforge. Kernels of one part of a unit.
#pragma once
#include "static_switch.h"
${switches}

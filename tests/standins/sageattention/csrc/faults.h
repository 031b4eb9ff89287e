// Faults to plant in a copy of this tree, each off: what a check of the wheel has to find.
#pragma once

#ifndef STANDIN_FAULT_UNWRITTEN_ROW
#define STANDIN_FAULT_UNWRITTEN_ROW 0 // the last row of each head's output is never written
#endif
#ifndef STANDIN_FAULT_SCALE
#define STANDIN_FAULT_SCALE 0 // the scale of the softmax is doubled
#endif
#ifndef STANDIN_FAULT_HANG
#define STANDIN_FAULT_HANG 0 // the kernel never ends
#endif

#include <cuda_runtime.h>
#include "flash.h"
${refusals}
#ifdef FLASH_NAMESPACE
namespace FLASH_NAMESPACE {
#endif

${functions}

#ifdef FLASH_NAMESPACE
}
#endif

${renames}

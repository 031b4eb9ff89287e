// Made by attnforge: ${what}.
#pragma once
#include <stdexcept>
#include "${launcher}"
#ifdef FLASH_NAMESPACE
namespace FLASH_NAMESPACE {
#endif
${functions}
#ifdef FLASH_NAMESPACE
}
#endif

#include <stdexcept>
#include "static_switch.h"
#if !defined(FLASHATTENTION_DISABLE_SOFTCAP) && !defined(ATTNFORGE_FIXED_SOFTCAP)
enum : bool { Is_dropout = false };
#undef SOFTCAP_SWITCH
#define SOFTCAP_SWITCH(COND, CONST_NAME, ...) \
    [&] { \
        if constexpr (static_cast<bool>(Is_dropout)) { \
            if (COND) throw std::runtime_error("there is no kernel with both softcap and dropout"); \
            constexpr static bool CONST_NAME = false; \
            return __VA_ARGS__(); \
        } else if (COND) { \
            constexpr static bool CONST_NAME = true; \
            return __VA_ARGS__(); \
        } else { \
            constexpr static bool CONST_NAME = false; \
            return __VA_ARGS__(); \
        } \
    }()
#endif

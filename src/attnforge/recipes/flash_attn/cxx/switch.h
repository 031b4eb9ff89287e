#define ${fixed}${name}
#undef ${name}_SWITCH
#define ${name}_SWITCH(COND, CONST_NAME, ...) \
    [&] { constexpr static bool CONST_NAME = ${value}; return __VA_ARGS__(); }()

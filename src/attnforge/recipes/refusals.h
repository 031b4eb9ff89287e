#include <stdexcept>
#include <string>
#include <type_traits>
${declared}
namespace attnforge {

[[noreturn]] inline void left_out(const std::string &what, const std::string &command) {
    throw std::runtime_error("this wheel of ${package} ${version} was built without " + what +
                             ". A wheel with it: " + command);
}

template<typename T> constexpr const char *dtype_name() {
    return ${dtype_name};
}

template<typename T, int HeadDim> constexpr bool has_kernel() {
    return (${head_dims}) && (${dtypes});
}

template<typename T, int HeadDim> [[noreturn]] void no_kernel() {
    left_out(std::string("kernels for head dimension ") + std::to_string(HeadDim) + " in " + dtype_name<T>(),
             std::string("${base} --head-dims ${kept_dims}") + ((${head_dims}) ? "" : "," + std::to_string(HeadDim)) +
             " --dtypes ${kept_dtypes}" + ((${dtypes}) ? "" : std::string(",") + dtype_name<T>())${rest});
}

template<typename Params> void guard(const Params &params) {
    (void)params;
${guards}
}

}  // namespace attnforge

// libc10.so of the stand-in: one function, so that a module that is linked against it has a symbol to resolve.
namespace c10 {
int answer() { return 42; }
}  // namespace c10

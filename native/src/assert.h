// Assertions that stay on in production: a broken invariant stops the process before it reaches the
// disk.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace pando {

[[noreturn]] inline void assert_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "pando: assertion failed: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace pando

#define PANDO_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::pando::assert_failed(#condition, __FILE__, __LINE__))

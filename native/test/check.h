// The checks of the C++ tests. A test is a program: it prints what failed and where, goes on, and
// ends with `return finish("name");`, whose line the test runner requires.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace pando::test {

// Some tests check on several threads.
inline std::atomic<uint64_t> checks = 0;
inline std::atomic<uint64_t> failed_checks = 0;

inline bool check(bool passed, const char* text, const char* file, int line) {
  ++checks;
  if (!passed) {
    ++failed_checks;
    std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
  }
  return passed;
}

/// For main's return value.
inline int finish(const char* name) {
  if (failed_checks > 0) {
    std::fprintf(stderr, "%s: %llu of %llu checks failed\n", name,
                 static_cast<unsigned long long>(failed_checks.load()),
                 static_cast<unsigned long long>(checks.load()));
    return EXIT_FAILURE;
  }
  std::printf("%s: %llu checks passed\n", name, static_cast<unsigned long long>(checks.load()));
  return EXIT_SUCCESS;
}

/// For main's return value where the machine lacks something: `skip("needs IPv6")`.
inline int skip(const char* reason) {
  std::printf("skip: %s\n", reason);
  return 77;
}

}  // namespace pando::test

/// Counts, reports, goes on. True if `condition` held.
#define CHECK(condition) pando::test::check((condition), #condition, __FILE__, __LINE__)
/// For what the rest of the test cannot do without.
#define REQUIRE(condition)                          \
  do {                                              \
    if (!CHECK(condition)) std::exit(EXIT_FAILURE); \
  } while (false)

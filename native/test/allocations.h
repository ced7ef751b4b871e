// Counts what a thread allocates. Included by one file of a program: it replaces operator new.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace pando::test {

inline thread_local uint64_t allocations = 0;

}  // namespace pando::test

// A sanitizer compares new with delete, and must see both or neither.
void* operator new(size_t size) {
  ++pando::test::allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

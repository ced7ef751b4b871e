// Little-endian integers in byte buffers.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pando {

static_assert(std::endian::native == std::endian::little, "the formats are little-endian");

template <typename T>
void store_le(std::byte* out, T value) {
  std::memcpy(out, &value, sizeof(T));
}

template <typename T>
T load_le(const std::byte* in) {
  T value;
  std::memcpy(&value, in, sizeof(T));
  return value;
}

}  // namespace pando

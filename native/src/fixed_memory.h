// Memory that is registered with a ring: the kernel looks its pages up once, and not again with
// each read and write. Of a random read of 4 KiB that is about a tenth of what the kernel does.
//
// Address space for all of it is taken at once, so that whether a buffer is in it is a comparison,
// and which registration it belongs to a division; memory only slab by slab, when somebody wants
// one, and for good: registered pages stay. Where the kernel does not do it, or the limit of locked
// memory is reached, take_slab() gives nothing, and all goes on with ordinary memory.
#pragma once

#include <cstddef>

namespace pando {

class Ring;

class FixedMemory {
 public:
  static constexpr size_t kSlabBytes = 1 << 20;
  static constexpr size_t kMaxSlabs = 16;

  FixedMemory() = default;
  FixedMemory(const FixedMemory&) = delete;
  FixedMemory& operator=(const FixedMemory&) = delete;
  /// After the ring.
  ~FixedMemory();

  /// Registers with `ring`, from now on.
  void attach(Ring& ring);
  /// kSlabBytes that are registered, aligned to 4 KiB; null if there are no more.
  std::byte* take_slab();
  bool contains(const std::byte* data) const {
    return static_cast<size_t>(data - base_) < taken_ * kSlabBytes;
  }
  size_t slabs() const { return taken_; }

 private:
  Ring* ring_ = nullptr;
  std::byte* base_ = nullptr;
  size_t taken_ = 0;
};

}  // namespace pando

#include "fixed_memory.h"

#include <sys/mman.h>

#include "assert.h"
#include "ring.h"

namespace pando {
namespace {

constexpr size_t kBytes = FixedMemory::kSlabBytes * FixedMemory::kMaxSlabs;

}  // namespace

FixedMemory::~FixedMemory() {
  if (base_ != nullptr) munmap(base_, kBytes);
}

void FixedMemory::attach(Ring& ring) {
  PANDO_ASSERT(ring_ == nullptr);
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  if (mapped == MAP_FAILED) return;
  base_ = static_cast<std::byte*>(mapped);
  // A huge page would be resident whole for the sake of one slab.
  madvise(mapped, kBytes, MADV_NOHUGEPAGE);
  // A child would get a copy of every page of it.
  madvise(mapped, kBytes, MADV_DONTFORK);
  if (ring.prepare_fixed(base_, kSlabBytes, kMaxSlabs)) ring_ = &ring;
}

std::byte* FixedMemory::take_slab() {
  if (ring_ == nullptr || taken_ == kMaxSlabs) return nullptr;
  if (!ring_->fix_next_slab()) {
    ring_ = nullptr;  // the limit of locked memory: it will not be another one next time
    return nullptr;
  }
  return base_ + taken_++ * kSlabBytes;
}

}  // namespace pando

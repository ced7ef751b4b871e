#include "buffer.h"

#include <bit>
#include <cstdlib>
#include <utility>

#include "assert.h"
#include "fixed_memory.h"

namespace pando {

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  if (this != &other) {
    reset();
    pool_ = std::exchange(other.pool_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

Buffer::~Buffer() {
  reset();
}

void Buffer::reset() {
  if (data_ != nullptr) pool_->give_back(data_, capacity_);
  pool_ = nullptr;
  data_ = nullptr;
  capacity_ = 0;
}

BufferPool::~BufferPool() {
  PANDO_ASSERT(in_use_bytes_ == 0);
  for (auto& list : free_) {
    for (std::byte* data : list) {
      if (!is_fixed(data)) std::free(data);
    }
  }
}

bool BufferPool::is_fixed(const std::byte* data) const {
  return fixed_ != nullptr && fixed_->contains(data);
}

Buffer BufferPool::take(size_t size) {
  PANDO_ASSERT(size > 0 && size <= size_t{1} << (kSmallestShift + kClasses - 1));
  const size_t capacity = std::max(std::bit_ceil(size), size_t{1} << kSmallestShift);
  auto& list = free_[std::countr_zero(capacity) - kSmallestShift];
  Buffer buffer;
  if (list.empty() && fixed_ != nullptr && capacity <= kMaxFixedBytes) {
    if (std::byte* slab = fixed_->take_slab()) {
      for (size_t at = FixedMemory::kSlabBytes; at > 0; at -= capacity) {
        list.push_back(slab + at - capacity);
      }
    }
  }
  if (list.empty()) {
    buffer.data_ = static_cast<std::byte*>(std::aligned_alloc(4096, capacity));
    if (buffer.data_ == nullptr) return buffer;
  } else {
    buffer.data_ = list.back();
    list.pop_back();
  }
  buffer.pool_ = this;
  buffer.capacity_ = capacity;
  in_use_bytes_ += capacity;
  return buffer;
}

void BufferPool::give_back(std::byte* data, size_t capacity) {
  in_use_bytes_ -= capacity;
  auto& list = free_[std::countr_zero(capacity) - kSmallestShift];
  if (!is_fixed(data) && (list.size() + 1) * capacity > kKeepBytes) {
    std::free(data);
  } else {
    list.push_back(data);
  }
}

}  // namespace pando

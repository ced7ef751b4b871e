// 4 KiB-aligned memory for O_DIRECT, kept in size classes and reused. One pool per reactor, no
// lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pando {

class BufferPool;
class FixedMemory;

/// A move-only aligned buffer that goes back to its pool when it dies. The pool must outlive it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  std::byte* data() const { return data_; }
  /// At least what was asked for.
  size_t capacity() const { return capacity_; }
  explicit operator bool() const { return data_ != nullptr; }
  void reset();

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
};

class BufferPool {
 public:
  /// `fixed`: where small buffers come from first; it outlives the pool.
  explicit BufferPool(FixedMemory* fixed = nullptr) : fixed_(fixed) {}
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool();

  /// An aligned buffer of at least `size` bytes (1 to 2 MiB), not zeroed; empty if there is no
  /// memory.
  Buffer take(size_t size);
  /// Bytes in buffers that are in use now.
  size_t in_use_bytes() const { return in_use_bytes_; }

 private:
  friend class Buffer;
  void give_back(std::byte* data, size_t capacity);
  bool is_fixed(const std::byte* data) const;

  static constexpr size_t kSmallestShift = 12;   // 4 KiB
  static constexpr size_t kMaxFixedBytes = 128 << 10;
  static constexpr size_t kClasses = 10;         // to 2 MiB
  static constexpr size_t kKeepBytes = 8 << 20;  // per class, what is kept for reuse

  FixedMemory* fixed_;
  std::array<std::vector<std::byte*>, kClasses> free_;
  size_t in_use_bytes_ = 0;
};

}  // namespace pando

// The disk seam: what the engine asks of a data device. Two implementations, io_uring
// (uring_disk.h) and simulated (sim_disk.h).
//
// A disk has a volatile write cache unless it says otherwise: a completed write is durable only
// after a flush that was *issued* after the completion, or if it was a durable write. Operations
// complete in any order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ring.h"

namespace pando {

enum class DiskOpKind : uint8_t {
  kRead,
  kWrite,
  kWriteDurable,  // FUA: durable by itself when done; says nothing of other writes
  kFlush,
  kDiscard,  // nobody needs these bytes any more: what they read as afterwards is anything
};

/// One operation. The submitter owns it, and its data, until `done` runs; `done` never runs inside
/// submit().
struct DiskOp {
  DiskOpKind kind = DiskOpKind::kRead;
  int error = 0;  // 0, or a positive errno; the whole length was transferred if 0
  uint32_t length = 0;
  uint64_t offset = 0;
  std::byte* data = nullptr;  // 4 KiB-aligned
  void (*done)(DiskOp* op) = nullptr;
  void* context = nullptr;

  RingOp ring_op;               // the disk's, while the operation is submitted
  class Disk* owner = nullptr;  // the disk's
  uint32_t transferred = 0;     // the disk's
};

class Disk {
 public:
  virtual ~Disk() = default;
  virtual void submit(DiskOp* op) = 0;
  /// False if a completed write is already durable (no step 1 of a flush is needed).
  virtual bool volatile_cache() const = 0;
  /// Bytes that are written whole or not at all across power loss: 512 or 4096.
  virtual uint32_t atomic_unit() const = 0;
  virtual uint64_t size_bytes() const = 0;
};

}  // namespace pando

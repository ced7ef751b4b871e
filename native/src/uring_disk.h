// The data device through io_uring: a file or a block device, opened O_DIRECT.
//
// A file in memory (tmpfs) is copied by the caller's own thread: there is no device to wait for,
// and io_uring would hand each copy to a worker of the kernel's.
#pragma once

#include <memory>
#include <string>

#include "discard_thread.h"
#include "disk.h"

namespace pando {

/// An open data device and the exclusive lock on it (flock), which ends with the object.
class DeviceFile {
 public:
  /// Throws std::system_error; EWOULDBLOCK if another process holds the lock.
  explicit DeviceFile(const std::string& path);
  DeviceFile(const DeviceFile&) = delete;
  DeviceFile& operator=(const DeviceFile&) = delete;
  ~DeviceFile();

  int fd() const { return fd_; }
  bool is_block_device() const { return block_device_; }
  /// A file that is nowhere but in memory.
  bool in_memory() const { return in_memory_; }
  uint64_t size_bytes() const { return size_bytes_; }
  uint32_t atomic_unit() const { return atomic_unit_; }
  /// A file always needs a flush (its extents are converted by it); a block device unless it
  /// reports write-through.
  bool volatile_cache() const { return volatile_cache_; }

 private:
  int fd_ = -1;
  bool block_device_ = false;
  bool in_memory_ = false;
  bool volatile_cache_ = true;
  uint32_t atomic_unit_ = 512;
  uint64_t size_bytes_ = 0;
};

class UringDisk final : public Disk {
 public:
  /// Both must outlive the disk, and nothing be under way when it ends.
  UringDisk(Ring& ring, const DeviceFile& device) : ring_(ring), device_(device) {}

  void submit(DiskOp* op) override;
  bool volatile_cache() const override { return device_.volatile_cache(); }
  uint32_t atomic_unit() const override { return device_.atomic_unit(); }
  uint64_t size_bytes() const override { return device_.size_bytes(); }

 private:
  void issue(DiskOp* op);
  void copy(DiskOp* op);
  void completed(DiskOp* op, int32_t result);

  Ring& ring_;
  const DeviceFile& device_;
  std::unique_ptr<DiscardThread> discards_;  // of a block device, from the first one on
};

}  // namespace pando

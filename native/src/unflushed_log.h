// The records that are acknowledged but not yet durable in the journal, in memory that outlives the
// process.
//
// A host believes that a write which was acknowledged stays, as long as the machine stays: it may
// flush after the daemon was killed and started again, and the new daemon has nothing to flush. So
// every record is copied here before its write is acknowledged: no system call and no I/O, and a
// killed daemon loses nothing. A power cut takes this memory, as it takes what the device had not
// flushed; recovery knows by the boot id.
//
// The layout is in docs/format.md. Entries are published by moving `head` after their bytes are
// written, so a reader finds whole entries whenever the writer was stopped.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>

#include "journal_format.h"

namespace pando {

struct UnflushedIdentity {
  std::array<uint8_t, 16> pool_uuid;
  uint64_t epoch;
  std::string boot_id;  // at most 40 bytes
};

class UnflushedLog {
 public:
  static constexpr size_t kHeaderBytes = 4096;

  /// Starts an empty log in `memory` (at least kHeaderBytes and 64 KiB more), which must outlive
  /// it.
  UnflushedLog(std::span<std::byte> memory, const UnflushedIdentity& identity);

  /// Room for records of `bytes` in all. False: commit first.
  bool reserve(uint32_t bytes);
  void unreserve(uint32_t bytes);

  /// Within reserved room.
  void append(uint64_t ordinal, const JournalRecord& record);
  /// The records up to `ordinal` are durable in the journal.
  void durable(uint64_t ordinal);

  uint64_t used_bytes() const { return head_ - tail_ + reserved_; }
  uint64_t capacity() const { return ring_.size(); }

 private:
  struct Entry {
    uint64_t ordinal;
    uint64_t end;  // position after it
  };

  static uint64_t worst_case(uint32_t bytes);
  void store(size_t offset, uint64_t value);

  std::span<std::byte> header_;
  std::span<std::byte> ring_;
  uint64_t head_ = 0;  // positions rise for ever; the place is the position modulo the capacity
  uint64_t tail_ = 0;
  uint64_t reserved_ = 0;
  std::deque<Entry> entries_;
};

/// A file mapped shared. On tmpfs it is memory that outlives the process and ends with the machine.
class SharedMemory {
 public:
  /// Makes the file anew, `bytes` long, every page allocated. Throws std::system_error.
  SharedMemory(const std::string& path, size_t bytes);
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory();

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace pando

// The redo journal: records of mapping changes, in memory until a commit writes them, and the room
// that they need on the device.
//
// Records carry ordinals (1, 2, …) in the order in which they were applied; journal blocks carry
// sequences. "Durable" is said of ordinals. Every change reserves its room *before* it takes a
// block, so that whatever has been applied can always be made durable: a full journal never waits
// for the checkpoint that would empty it.
//
// Writes of journal blocks are strictly one after another, so acknowledgements follow the journal's
// order by construction.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "buffer.h"
#include "disk.h"
#include "journal_format.h"
#include "unflushed_log.h"

namespace pando {

struct JournalOptions {
  uint64_t offset_bytes;
  uint64_t block_count;
  uint64_t next_sequence;  // also the tail: recovery has left the journal empty
  uint64_t epoch;
  std::array<uint8_t, 16> pool_uuid;
};

/// What a record did to the free map.
struct FreeMapChange {
  uint32_t first_block;
  uint32_t count;
  bool allocate;
};

class Journal {
 public:
  /// `unflushed` has every record from append() until it is durable; null in tests of the journal
  /// alone.
  Journal(Disk& disk, BufferPool& buffers, const JournalOptions& options,
          UnflushedLog* unflushed = nullptr);

  /// Room for a change whose records take at most `bytes` and number at most `bytes /
  /// kRecordBytes`. False: wait for a checkpoint.
  bool reserve(uint32_t bytes);
  /// It is the journal's blocks that lack, not room for what is unflushed.
  bool is_full_for(uint32_t bytes) const {
    return used_blocks() + blocks_for(bytes) > options_.block_count;
  }
  /// Gives back what reserve() took, after the records were appended or instead.
  void unreserve(uint32_t bytes);

  /// Adds a record; returns its ordinal. Its data must be written already (completed, not
  /// necessarily durable).
  uint64_t append(JournalRecord record);

  /// A commit takes the records that were appended before this call, and no later one.
  void capture();
  /// Writes the captured records durably, then calls `done` (0 or a positive errno). One write at a
  /// time.
  void write_captured(std::function<void(int error)> done);

  uint64_t last_ordinal() const { return last_ordinal_; }
  uint64_t captured_ordinal() const { return captured_ordinal_; }
  uint64_t durable_ordinal() const { return durable_ordinal_; }
  /// Every block below it is durable, and holds the records up to durable_ordinal() when no write
  /// is in progress.
  uint64_t durable_sequence() const { return written_sequence_; }
  uint64_t tail() const { return tail_; }
  uint64_t block_count() const { return options_.block_count; }
  /// Blocks that are in use, or spoken for by records in memory.
  uint64_t used_blocks() const;

  /// Records since the tail, durable or not.
  uint64_t records_since_tail() const { return last_ordinal_ - tail_ordinal_; }
  /// The changes that records up to `ordinal` made to the free map since the tail, in order.
  std::vector<FreeMapChange> changes_up_to(uint64_t ordinal) const;
  /// The checkpoint up to `ordinal` (all durable, in blocks below `tail`) is durable: their room is
  /// free again.
  void release(uint64_t tail, uint64_t ordinal);

 private:
  struct Change {
    uint64_t ordinal;
    FreeMapChange change;
  };

  static uint64_t blocks_for(uint64_t bytes);
  void pack();
  void write_next();

  Disk& disk_;
  BufferPool& buffers_;
  JournalOptions options_;
  UnflushedLog* unflushed_;
  uint64_t tail_;
  uint64_t next_sequence_;
  uint64_t written_sequence_;  // every block below it is durable
  uint64_t last_ordinal_ = 0;
  uint64_t captured_ordinal_ = 0;
  uint64_t durable_ordinal_ = 0;
  uint64_t tail_ordinal_ = 0;
  uint64_t reserved_blocks_ = 0;
  uint64_t captured_bytes_ = 0;
  uint64_t fresh_bytes_ = 0;           // appended after the capture
  std::deque<JournalRecord> records_;  // not yet written: captured ones first
  std::deque<Change> changes_;

  // The write in progress.
  bool writing_ = false;
  uint64_t writing_ordinal_ = 0;
  std::vector<std::byte*> blocks_;  // within buffer_
  std::deque<Buffer> buffers_in_use_;
  size_t blocks_written_ = 0;
  size_t blocks_in_flight_ = 0;
  DiskOp op_;
  std::function<void(int)> done_;
};

}  // namespace pando

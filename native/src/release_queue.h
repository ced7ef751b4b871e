// Blocks that have been freed but may not be written again yet.
//
// A block leaves this queue when (1) the checkpoint that recorded its release is durable, or the
// fold or reclaim that released it, and (2) every device read and write that was resolved before
// the release has finished: a late in-place write would land in somebody else's block.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "journal_format.h"

namespace pando {

/// Device I/O whose physical addresses are fixed. Linked while it is under way.
class ActiveIo {
 public:
  ActiveIo() = default;
  ActiveIo(const ActiveIo&) = delete;
  ActiveIo& operator=(const ActiveIo&) = delete;

 private:
  friend class ReleaseQueue;
  uint64_t started_ = 0;
  bool reads_ = false;
  ActiveIo* previous_ = nullptr;
  ActiveIo* next_ = nullptr;
};

class ReleaseQueue {
 public:
  ReleaseQueue();
  ReleaseQueue(const ReleaseQueue&) = delete;
  ReleaseQueue& operator=(const ReleaseQueue&) = delete;

  /// In the step in which the addresses are resolved.
  void start(ActiveIo* io, bool reads);
  void finish(ActiveIo* io);

  /// `run` was freed by record `ordinal`, just now.
  void add(BlockRun run, uint64_t ordinal);
  /// `run` was freed by no record, and that is durable: a fold's or a reclaim's.
  void add_durable(BlockRun run);
  /// The checkpoint up to `ordinal` is durable.
  void checkpointed(uint64_t ordinal) { durable_ordinal_ = ordinal; }
  /// What may be written again; each run is returned once.
  std::vector<BlockRun> take_released();

  /// They wait for a checkpoint, or for device I/O only.
  uint64_t pending_blocks() const { return pending_blocks_; }
  /// Runs that the checkpoint let go and device I/O under way still held.
  uint64_t held_by_io() const { return held_by_io_; }
  /// Of these, with a read among it.
  uint64_t held_by_reads() const { return held_by_reads_; }

 private:
  struct Pending {
    BlockRun run;
    uint64_t ordinal;
    uint64_t started_before;  // I/O numbered below this must have finished
    bool counted = false;
  };

  /// Device I/O under way may know the block.
  bool in_use(Pending* pending);
  bool read_before(uint64_t start) const;

  ActiveIo active_;  // head of the ring of active I/O, the oldest first
  uint64_t next_start_ = 1;
  uint64_t durable_ordinal_ = 0;
  uint64_t pending_blocks_ = 0;
  uint64_t held_by_io_ = 0;
  uint64_t held_by_reads_ = 0;
  std::deque<Pending> pending_;
  std::deque<Pending> durable_;  // wait for device I/O only
};

}  // namespace pando

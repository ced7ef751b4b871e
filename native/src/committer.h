// Group commit: turns flush requests into as few device flushes and journal writes as there can be.
//
// A round is: (1) the journal's records are captured and a device flush is issued in the same step,
// so every captured record's data had completed before it; (2) if anybody in the round needs
// records that are not durable, the captured ones are written with FUA. Step 1 of a round overlaps
// step 2 of the one before, never more. A device that has been written nothing since its last flush
// was issued is not flushed again.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "disk.h"
#include "journal.h"

namespace pando {

class Committer {
 public:
  /// `failed` is told once, when a flush or a journal write fails: the pool must take no more
  /// writes.
  Committer(Disk& disk, Journal& journal, std::function<void(int error)> failed);

  /// Calls `done` when every write completed so far is durable, and every record up to `ordinal`. 0
  /// or a positive errno.
  void commit(uint64_t ordinal, std::function<void(int error)> done);
  /// A write has completed that may be in the device's cache.
  void written() { unflushed_ = true; }
  /// Of the flush or the journal write that has failed; 0: none has.
  int error() const { return error_; }
  /// No round is under way and nobody waits.
  bool idle() const { return waiting_.empty() && !flushing_ && !writing_; }

  uint64_t rounds() const { return rounds_; }
  uint64_t journal_writes() const { return journal_writes_; }

 private:
  struct Waiter {
    uint64_t ordinal;
    std::function<void(int)> done;
  };

  void start_round();
  void flushed(int error);
  void write_stage();
  void finish(std::vector<Waiter> waiters, int error);
  void fail(int error);

  Disk& disk_;
  Journal& journal_;
  std::function<void(int)> failed_;
  std::vector<Waiter> waiting_;      // for the next round
  std::vector<Waiter> flush_round_;  // in step 1, or waiting for step 2 to be free
  std::vector<Waiter> write_round_;  // in step 2
  DiskOp flush_op_;
  // Of a process before this one, too, whose writes outlived it in the cache alone.
  bool unflushed_ = true;
  bool flushing_ = false;  // step 1 is taken
  bool flush_done_ = false;
  bool writing_ = false;  // step 2 is taken
  int error_ = 0;         // sticky
  uint64_t rounds_ = 0;
  uint64_t journal_writes_ = 0;
};

}  // namespace pando

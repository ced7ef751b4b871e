// Gives blocks back to the device: a hole in a file, a discard on a block device.
//
// Whoever asks owns the blocks until it is answered: nobody maps them, not even after a power cut,
// and nobody may be lent them. So nothing that is punched here was or will be anybody's.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "disk.h"
#include "journal_format.h"

namespace pando {

class Punches {
 public:
  /// `error`: 0, or the errno of the first run that could not be punched; those after it are not
  /// tried.
  using Done = std::function<void(int error)>;

  Punches(Disk& disk, uint64_t data_offset_bytes, uint32_t block_size)
      : disk_(disk), data_offset_bytes_(data_offset_bytes), block_size_(block_size) {}
  Punches(const Punches&) = delete;
  Punches& operator=(const Punches&) = delete;

  /// One operation at a time: hosts' I/O does not wait behind a crowd of them.
  void punch(std::vector<BlockRun> runs, Done done);

 private:
  struct Request {
    std::vector<BlockRun> runs;
    Done done;
    size_t next = 0;
  };

  void go_on();
  void ended(int error);

  Disk& disk_;
  uint64_t data_offset_bytes_;
  uint32_t block_size_;
  std::deque<Request> requests_;  // the first one is under way
  DiskOp op_;
};

}  // namespace pando

// The working state of requests: what a volume keeps of a BlockIo, of the part of it in one span,
// and of each device operation.
#pragma once

#include <cstdint>
#include <vector>

#include "block_io.h"
#include "buffer.h"
#include "disk.h"
#include "journal_format.h"
#include "release_queue.h"

namespace pando {

class Volume;

struct Request {
  BlockIo* io = nullptr;
  uint64_t next_byte = 0;  // where the next piece begins
  uint64_t end_byte = 0;
  uint32_t pieces = 0;  // under way
  bool pumping = false;
  bool changes = false;  // counted in the volume's writes
  IoStatus status = IoStatus::kOk;
};

struct Segment {
  DiskOp op;
  struct Piece* piece = nullptr;
};

/// New blocks for consecutive slots.
struct NewRun {
  uint32_t slot;
  BlockRun run;
};

/// A new block of which the request covers a part: the rest is merged from what was there.
struct MergedBlock {
  uint32_t slot;
  uint32_t block;      // the new one
  uint32_t old_block;  // 0: was a hole
  Buffer buffer;
};

struct Piece {
  Volume* volume = nullptr;
  Request* request = nullptr;
  uint32_t span = 0;
  uint32_t first_slot = 0;
  uint32_t slot_count = 0;
  uint64_t begin_byte = 0;  // in the volume
  uint64_t end_byte = 0;

  bool locked = false;
  bool merging = false;         // the segments under way read old blocks
  uint32_t reserved_bytes = 0;  // in the journal
  uint32_t new_block_count = 0;
  uint32_t hole_count = 0;  // mapped slots that become holes
  uint32_t segments_left = 0;
  int error = 0;
  ActiveIo active;
  std::vector<NewRun> new_runs;
  std::vector<MergedBlock> merged;
  std::vector<Segment*> segments;  // prepared, not yet submitted
};

}  // namespace pando

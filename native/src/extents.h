// Free blocks lent to this reactor by the free map (TypeScript owns it). What is lent and not
// written is forgotten at a crash, and so not lost.
//
// Each writer (a volume) draws from a run of its own, so that what it writes in a row lies in a
// row.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "journal_format.h"

namespace pando {

/// A volume's place to allocate from.
struct ExtentCursor {
  BlockRun run{0, 0};
};

class Extents {
 public:
  void lend(const std::vector<BlockRun>& runs);

  /// Takes `count` blocks, appended to `out` as few runs; all or nothing. False: not that many are
  /// lent.
  bool take(ExtentCursor* cursor, uint32_t count, std::vector<BlockRun>* out);
  /// Blocks that were taken but have not been written to, or not successfully.
  void give_back(BlockRun run);

  void attach(ExtentCursor* cursor) { cursors_.push_back(cursor); }
  /// The rest of the cursor's run is anybody's again.
  void detach(ExtentCursor* cursor);

  uint64_t free_blocks() const { return free_blocks_; }

 private:
  void refill(ExtentCursor* cursor, uint32_t wanted);

  std::deque<BlockRun> runs_;
  std::vector<ExtentCursor*> cursors_;
  uint64_t free_blocks_ = 0;
};

}  // namespace pando

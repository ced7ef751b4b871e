#include "extents.h"

#include <algorithm>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

/// A writer's own run: 4 MiB at blocks of 4 KiB.
constexpr uint32_t kCursorBlocks = 1024;

}  // namespace

void Extents::lend(const std::vector<BlockRun>& runs) {
  for (const BlockRun& run : runs) {
    PANDO_ASSERT(run.first != 0 && run.count != 0);
    runs_.push_back(run);
    free_blocks_ += run.count;
  }
}

void Extents::refill(ExtentCursor* cursor, uint32_t wanted) {
  PANDO_ASSERT(cursor->run.count == 0);
  if (runs_.empty()) {
    // Nothing is left but what other writers hold for themselves.
    for (ExtentCursor* other : cursors_) {
      if (other == cursor || other->run.count == 0) continue;
      cursor->run = std::exchange(other->run, BlockRun{0, 0});
      return;
    }
    PANDO_ASSERT(false);
  }
  BlockRun& run = runs_.front();
  const uint32_t count = std::min(run.count, std::max(wanted, kCursorBlocks));
  cursor->run = {run.first, count};
  run.first += count;
  run.count -= count;
  if (run.count == 0) runs_.pop_front();
}

bool Extents::take(ExtentCursor* cursor, uint32_t count, std::vector<BlockRun>* out) {
  if (count > free_blocks_) return false;
  free_blocks_ -= count;
  while (count > 0) {
    if (cursor->run.count == 0) refill(cursor, count);
    const uint32_t part = std::min(count, cursor->run.count);
    out->push_back({cursor->run.first, part});
    cursor->run.first += part;
    cursor->run.count -= part;
    count -= part;
  }
  return true;
}

void Extents::give_back(BlockRun run) {
  runs_.push_front(run);
  free_blocks_ += run.count;
}

void Extents::detach(ExtentCursor* cursor) {
  std::erase(cursors_, cursor);
  if (cursor->run.count != 0) runs_.push_front(std::exchange(cursor->run, BlockRun{0, 0}));
}

}  // namespace pando

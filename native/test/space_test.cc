// Where free blocks are on the native side: lent extents, the queue of freed ones, and who may
// change which slots.
#include <vector>

#include "check.h"
#include "extents.h"
#include "piece.h"
#include "release_queue.h"
#include "span_locks.h"

namespace pando {
namespace {

uint32_t total(const std::vector<BlockRun>& runs) {
  uint32_t count = 0;
  for (const BlockRun& run : runs) count += run.count;
  return count;
}

void test_writers_draw_from_runs_of_their_own() {
  Extents extents;
  ExtentCursor a;
  ExtentCursor b;
  extents.attach(&a);
  extents.attach(&b);
  extents.lend({{1, 5000}});
  std::vector<BlockRun> first;
  std::vector<BlockRun> other;
  std::vector<BlockRun> second;
  CHECK(extents.take(&a, 2, &first));
  CHECK(extents.take(&b, 2, &other));
  CHECK(extents.take(&a, 2, &second));
  CHECK(second[0].first == first[0].first + 2);
  CHECK(extents.free_blocks() == 4994);
  extents.detach(&a);
  extents.detach(&b);
  CHECK(extents.free_blocks() == 4994);
}

void test_all_or_nothing_and_stealing() {
  Extents extents;
  ExtentCursor a;
  ExtentCursor b;
  extents.attach(&a);
  extents.attach(&b);
  extents.lend({{10, 100}});
  std::vector<BlockRun> out;
  CHECK(extents.take(&a, 1, &out));  // a's cursor holds the rest
  CHECK(!extents.take(&b, 100, &out));
  CHECK(out.size() == 1);
  CHECK(extents.take(&b, 99, &out));
  CHECK(total(out) == 100);
  CHECK(extents.free_blocks() == 0);
  extents.give_back({10, 1});
  out.clear();
  CHECK(extents.take(&a, 1, &out));
  CHECK(out[0].first == 10);
  extents.detach(&a);
  extents.detach(&b);
}

void test_freed_blocks_wait_for_the_checkpoint() {
  ReleaseQueue queue;
  queue.add({5, 2}, 10);
  CHECK(queue.take_released().empty());
  queue.checkpointed(9);
  CHECK(queue.take_released().empty());
  queue.checkpointed(10);
  CHECK(total(queue.take_released()) == 2);
  CHECK(queue.pending_blocks() == 0);
}

void test_freed_blocks_wait_for_io() {
  ReleaseQueue queue;
  ActiveIo before;
  ActiveIo after;
  queue.start(&before, false);
  queue.add({5, 1}, 1);
  queue.start(&after, true);
  queue.checkpointed(1);
  CHECK(queue.take_released().empty());
  CHECK(queue.held_by_io() == 1);
  CHECK(queue.held_by_reads() == 0);  // that read began later
  queue.finish(&before);
  CHECK(total(queue.take_released()) ==
        1);  // what started after the release does not know the block
  queue.finish(&after);
}

struct TestPiece : Piece {
  TestPiece(uint32_t in_span, uint32_t first, uint32_t count) {
    span = in_span;
    first_slot = first;
    slot_count = count;
  }
};

void test_overlapping_changes_go_in_order() {
  SpanLocks locks;
  TestPiece a(3, 0, 8);
  TestPiece b(3, 4, 8);
  TestPiece c(3, 10, 4);
  TestPiece elsewhere(3 + 64, 4, 8);  // the same bucket, another span
  CHECK(locks.lock(&a));
  CHECK(!locks.lock(&b));
  CHECK(!locks.lock(&c));  // overlaps b, which came first
  CHECK(locks.lock(&elsewhere));
  CHECK(locks.unlock(&a) == std::vector<Piece*>{&b});
  CHECK(locks.unlock(&b) == std::vector<Piece*>{&c});
  CHECK(locks.unlock(&c).empty());
  CHECK(locks.unlock(&elsewhere).empty());
}

}  // namespace
}  // namespace pando

int main() {
  pando::test_writers_draw_from_runs_of_their_own();
  pando::test_all_or_nothing_and_stealing();
  pando::test_freed_blocks_wait_for_the_checkpoint();
  pando::test_freed_blocks_wait_for_io();
  pando::test_overlapping_changes_go_in_order();
  return pando::test::finish("space_test");
}

// A volume's own limits: requests that came too early wait here, in their order, before they take
// anything of the pool. So a snapshot drains only what was admitted, and a limited volume holds up
// nobody else.
//
// A flush is never held: it covers what was acknowledged, and that has passed already.
#include <algorithm>
#include <utility>

#include "volume.h"

namespace pando {
namespace {

constexpr uint64_t kShortestWaitMs = 1;
/// So long at most does what waits feel the limit that was there before.
constexpr uint64_t kLongestWaitMs = 100;

bool counts(IoOp op) {
  return op != IoOp::kFlush && op != IoOp::kMap;
}

/// Discarding moves no data.
uint64_t data_bytes(const BlockIo& io) {
  return io.op == IoOp::kRead || io.op == IoOp::kWrite ? io.length_bytes : 0;
}

}  // namespace

void Volume::set_limits(uint64_t requests_per_second, uint64_t bytes_per_second) {
  limit_.set(requests_per_second, bytes_per_second);
  release_limited();
}

bool Volume::over_limit(const BlockIo& io) {
  if (!counts(io.op)) return false;
  return !behind_limit_.empty() || !limit_.admit(pool_.host_.now_ns(), data_bytes(io));
}

void Volume::hold_for_limit(BlockIo* io) {
  ++pool_.counters_.limit_waits;
  behind_limit_.push_back(io);
  if (!limit_timer_set_) release_limited();
}

void Volume::release_limited() {
  while (!behind_limit_.empty()) {
    BlockIo* io = behind_limit_.front();
    io->status = validate(*io);
    const uint64_t now = pool_.host_.now_ns();
    if (io->status == IoStatus::kOk && !limit_.admit(now, data_bytes(*io))) {
      if (std::exchange(limit_timer_set_, true)) return;
      const uint64_t wait_ms = limit_.wait_ns(now) / 1'000'000 + kShortestWaitMs;
      // By number: the volume may be gone by then.
      pool_.host_.later(std::min(wait_ms, kLongestWaitMs), [pool = &pool_, id = id_] {
        Volume* volume = pool->find_volume(id);
        if (volume == nullptr) return;
        volume->limit_timer_set_ = false;
        volume->release_limited();
      });
      return;
    }
    behind_limit_.pop_front();
    io->status == IoStatus::kOk ? pass_gate(io) : io->done(io);
  }
}

}  // namespace pando

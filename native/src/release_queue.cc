#include "release_queue.h"

#include "assert.h"

namespace pando {

ReleaseQueue::ReleaseQueue() {
  active_.next_ = &active_;
  active_.previous_ = &active_;
}

void ReleaseQueue::start(ActiveIo* io) {
  PANDO_ASSERT(io->next_ == nullptr);
  io->started_ = next_start_++;
  io->previous_ = active_.previous_;
  io->next_ = &active_;
  io->previous_->next_ = io;
  active_.previous_ = io;
}

void ReleaseQueue::finish(ActiveIo* io) {
  PANDO_ASSERT(io->next_ != nullptr);
  io->previous_->next_ = io->next_;
  io->next_->previous_ = io->previous_;
  io->next_ = nullptr;
  io->previous_ = nullptr;
}

void ReleaseQueue::add(BlockRun run, uint64_t ordinal) {
  PANDO_ASSERT(pending_.empty() || pending_.back().ordinal <= ordinal);
  pending_.push_back({run, ordinal, next_start_});
  pending_blocks_ += run.count;
}

std::vector<BlockRun> ReleaseQueue::take_released() {
  std::vector<BlockRun> released;
  while (!pending_.empty() && pending_.front().ordinal <= durable_ordinal_) {
    Pending& pending = pending_.front();
    if (active_.next_ != &active_ && active_.next_->started_ < pending.started_before) {
      if (!pending.counted) ++held_by_io_;
      pending.counted = true;
      break;
    }
    released.push_back(pending.run);
    pending_blocks_ -= pending.run.count;
    pending_.pop_front();
  }
  return released;
}

}  // namespace pando

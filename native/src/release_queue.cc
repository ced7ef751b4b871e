#include "release_queue.h"

#include "assert.h"

namespace pando {

ReleaseQueue::ReleaseQueue() {
  active_.next_ = &active_;
  active_.previous_ = &active_;
}

void ReleaseQueue::start(ActiveIo* io, bool reads) {
  PANDO_ASSERT(io->next_ == nullptr);
  io->started_ = next_start_++;
  io->reads_ = reads;
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

void ReleaseQueue::add_durable(BlockRun run) {
  durable_.push_back({run, 0, next_start_});
  pending_blocks_ += run.count;
}

bool ReleaseQueue::in_use(Pending* pending) {
  if (active_.next_ == &active_ || active_.next_->started_ >= pending->started_before) return false;
  if (!pending->counted) {
    ++held_by_io_;
    if (read_before(pending->started_before)) ++held_by_reads_;
  }
  pending->counted = true;
  return true;
}

bool ReleaseQueue::read_before(uint64_t start) const {
  const ActiveIo* io = active_.next_;
  while (io != &active_ && io->started_ < start && !io->reads_) io = io->next_;
  return io != &active_ && io->started_ < start;
}

std::vector<BlockRun> ReleaseQueue::take_released() {
  std::vector<BlockRun> released;
  const auto take = [&](std::deque<Pending>* queue) {
    released.push_back(queue->front().run);
    pending_blocks_ -= queue->front().run.count;
    queue->pop_front();
  };
  while (!durable_.empty() && !in_use(&durable_.front())) take(&durable_);
  while (!pending_.empty() && pending_.front().ordinal <= durable_ordinal_ &&
         !in_use(&pending_.front())) {
    take(&pending_);
  }
  return released;
}

}  // namespace pando

#include "committer.h"

#include <algorithm>
#include <utility>

#include "assert.h"

namespace pando {

Committer::Committer(Disk& disk, Journal& journal, std::function<void(int)> failed)
    : disk_(disk), journal_(journal), failed_(std::move(failed)) {
  flush_op_.kind = DiskOpKind::kFlush;
  flush_op_.context = this;
  flush_op_.done = [](DiskOp* op) { static_cast<Committer*>(op->context)->flushed(op->error); };
}

void Committer::commit(uint64_t ordinal, std::function<void(int)> done) {
  PANDO_ASSERT(ordinal <= journal_.last_ordinal());
  if (error_ != 0) {
    done(error_);
    return;
  }
  waiting_.push_back({ordinal, std::move(done)});
  if (!flushing_) start_round();
}

void Committer::start_round() {
  PANDO_ASSERT(!flushing_ && flush_round_.empty());
  flushing_ = true;
  flush_done_ = false;
  ++rounds_;
  flush_round_.swap(waiting_);
  journal_.capture();
  if (disk_.volatile_cache() && unflushed_) {
    unflushed_ = false;  // what completes from now on is not covered
    disk_.submit(&flush_op_);
  } else {
    flushed(0);
  }
}

void Committer::flushed(int error) {
  if (error != 0) {
    fail(error);
    return;
  }
  flush_done_ = true;
  if (!writing_) write_stage();
}

void Committer::write_stage() {
  PANDO_ASSERT(flush_done_ && !writing_);
  const uint64_t durable = journal_.durable_ordinal();
  const bool needed = std::any_of(flush_round_.begin(), flush_round_.end(),
                                  [durable](const Waiter& w) { return w.ordinal > durable; });
  std::vector<Waiter> round = std::exchange(flush_round_, {});
  flushing_ = false;
  if (needed) {
    writing_ = true;
    ++journal_writes_;
    write_round_ = std::move(round);
    journal_.write_captured([this](int error) {
      if (error != 0) {
        fail(error);
        return;
      }
      writing_ = false;
      std::vector<Waiter> done = std::exchange(write_round_, {});
      if (flushing_ && flush_done_) write_stage();
      finish(std::move(done), 0);
    });
  } else {
    finish(std::move(round), 0);
  }
  if (!waiting_.empty() && !flushing_ && error_ == 0) start_round();
}

void Committer::finish(std::vector<Waiter> waiters, int error) {
  for (Waiter& waiter : waiters) {
    PANDO_ASSERT(error != 0 || waiter.ordinal <= journal_.durable_ordinal());
    waiter.done(error);
  }
}

void Committer::fail(int error) {
  const bool first = error_ == 0;
  if (first) error_ = error;
  flushing_ = false;
  if (first) failed_(error);
  std::vector<Waiter> all = std::exchange(write_round_, {});
  for (auto* list : {&flush_round_, &waiting_}) {
    for (Waiter& waiter : std::exchange(*list, {})) all.push_back(std::move(waiter));
  }
  finish(std::move(all), error_);
}

}  // namespace pando

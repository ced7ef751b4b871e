#include "reactor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "assert.h"

namespace pando {
namespace {

constexpr unsigned kRingEntries = 1024;
// A sanitizer watches what comes from the allocator only: a buffer of its own each.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kFixesMemory = false;
#else
constexpr bool kFixesMemory = true;
#endif

}  // namespace

Reactor::Reactor()
    : buffers_(&fixed_), ring_(kRingEntries), wakeup_fd_(eventfd(0, EFD_CLOEXEC)) {
  if (wakeup_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
  if (kFixesMemory) fixed_.attach(ring_);
  wakeup_op_.context = this;
  wakeup_op_.done = [](RingOp* op, int32_t) { static_cast<Reactor*>(op->context)->arm_wakeup(); };
  refresh_clock();
  arm_wakeup();
}

Reactor::~Reactor() {
  close(wakeup_fd_);
}

void Reactor::arm_wakeup() {
  ring_.read(&wakeup_op_, wakeup_fd_, &wakeup_value_, sizeof(wakeup_value_), 0);
}

void Reactor::refresh_clock() {
  now_ms_ = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                      std::chrono::steady_clock::now().time_since_epoch())
                                      .count());
}

void Reactor::post(std::function<void()> function) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(function));
  }
  if (first) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wakeup_fd_, &one, sizeof(one));
  }
}

void Reactor::stop() {
  post([this] {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  });
}

void Reactor::run() {
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    turn(UINT64_MAX);
  }
}

void Reactor::turn(uint64_t timeout_us) {
  refresh_clock();
  run_posted();
  run_due_timers();
  {
    std::lock_guard lock(mutex_);
    if (!posted_.empty() || stopping_) timeout_us = 0;
  }
  if (!timers_.empty()) {
    const uint64_t due = timers_.begin()->first;
    timeout_us = std::min(timeout_us, due > now_ms_ ? (due - now_ms_) * 1000 : 0);
  }
  ring_.submit_and_wait(timeout_us);
  // Before the completions, not after them: a time-out that one of them sets counts from now, not
  // from when the thread went to sleep.
  refresh_clock();
  ring_.run_completions();
}

void Reactor::run_posted() {
  std::vector<std::function<void()>> batch;
  {
    std::lock_guard lock(mutex_);
    batch.swap(posted_);
  }
  for (auto& function : batch) function();
}

TimerId Reactor::add_timer(uint64_t delay_ms, std::function<void()> function) {
  const TimerId id = next_timer_++;
  timers_.emplace(now_ms_ + delay_ms, Timer{id, std::move(function)});
  return id;
}

void Reactor::cancel_timer(TimerId id) {
  const auto found = std::find_if(timers_.begin(), timers_.end(),
                                  [id](const auto& entry) { return entry.second.id == id; });
  if (found != timers_.end()) timers_.erase(found);
}

void Reactor::run_due_timers() {
  while (!timers_.empty() && timers_.begin()->first <= now_ms_) {
    auto node = timers_.extract(timers_.begin());
    node.mapped().function();
  }
}

}  // namespace pando

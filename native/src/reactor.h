// The event loop of one pool: one thread, one io_uring, everything of the pool's data path on it.
//
// Other threads reach it only through post(). Timers are coarse (a tick of 10 ms) and meant for
// keep-alive and time-outs. While idle the thread sleeps in the kernel.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "buffer.h"
#include "fixed_memory.h"
#include "ring.h"

namespace pando {

using TimerId = uint64_t;

class Reactor {
 public:
  Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  ~Reactor();

  /// Runs until stop(). Call it on the thread that shall own everything behind this reactor.
  void run();
  /// One turn: posted functions, due timers, completions. Blocks for at most `timeout_us`. Tests
  /// drive a reactor with it.
  void turn(uint64_t timeout_us);
  /// From any thread: `function` runs on the reactor thread, in the order of the calls.
  void post(std::function<void()> function);
  /// From any thread: run() returns after the turn that is under way.
  void stop();

  /// On the reactor thread only: runs `function` once after `delay_ms`.
  TimerId add_timer(uint64_t delay_ms, std::function<void()> function);
  /// Harmless for a timer that has run.
  void cancel_timer(TimerId id);

  Ring& ring() { return ring_; }
  BufferPool& buffers() { return buffers_; }
  const FixedMemory& fixed_memory() const { return fixed_; }
  /// Milliseconds of CLOCK_MONOTONIC, read once per turn.
  uint64_t now_ms() const { return now_ms_; }

 private:
  struct Timer {
    TimerId id;
    std::function<void()> function;
  };

  void arm_wakeup();
  void run_posted();
  void run_due_timers();
  void refresh_clock();

  FixedMemory fixed_;
  BufferPool buffers_;
  Ring ring_;
  int wakeup_fd_;
  uint64_t wakeup_value_ = 0;
  RingOp wakeup_op_;
  uint64_t now_ms_ = 0;
  TimerId next_timer_ = 1;
  std::multimap<uint64_t, Timer> timers_;  // by due time

  std::mutex mutex_;  // guards what follows
  std::vector<std::function<void()>> posted_;
  bool stopping_ = false;
};

}  // namespace pando
